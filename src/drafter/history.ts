/**
 * Earlier outputs of a scope, and where the tokens at hand occurred in them (token-index.ts): a ring of the newest tokens.
 * Every output begins with a gap (-1), which no context matches. All that it allocates is taken from the scope's budget.
 */
import type { MemoryBudget } from "./memory-budget.ts";
import { TokenIndex } from "./token-index.ts";

/** Bytes per token of the ring: the token, two links, and two entries of heads. */
export const HISTORY_TOKEN_BYTES = 20;
const FIRST_TOKENS = 1024;
/** Positions are int32; past this it starts over. */
const MOST_POSITION = 2 ** 30;

export interface HistoryOptions {
  /** Most tokens held, a power of two. @default 262144 */
  tokens?: number;
}

export class History extends TokenIndex {
  private readonly budget: MemoryBudget;
  /** Most tokens held, a power of two. */
  readonly most: number;
  private taken = 0;

  constructor(budget: MemoryBudget, options: HistoryOptions = {}) {
    super({
      short: 3,
      long: 6,
      maxMatch: 16,
      maxOccurrences: 12,
    });
    this.budget = budget;
    this.most = options.tokens ?? 2 ** 18;
    this.clear();
  }

  /** Bytes taken from the budget. */
  get bytes(): number {
    return this.taken;
  }

  /** Adds `length` tokens of a text, from position `from` on, and a gap before them. */
  add(text: TokenIndex, from: number, length: number): void {
    if (length < 1) return;
    this.append(-1);
    for (let i = 0; i < length; i++) this.append(text.at(from + i));
  }

  append(token: number): void {
    // once it has wrapped, positions have their places: it can't grow any more
    if (this.count === this.held.length && this.held.length < this.most) this.grow();
    if (this.held.length === 0) return;
    if (this.count >= MOST_POSITION) this.clear();
    const at = this.count++;
    this.held[at & (this.held.length - 1)] = token;
    this.link(at);
  }

  clear(): void {
    this.budget.give(this.taken);
    this.taken = 0;
    this.count = 0;
    this.held = new Int32Array(0);
    this.shortPrevious = new Int32Array(0);
    this.longPrevious = new Int32Array(0);
    this.shortHeads = new Int32Array(0);
    this.longHeads = new Int32Array(0);
  }

  /**
   * Twice the room, without a rehash: both halves of the new heads begin with the old chains, in which a walk skips what does not match.
   */
  private grow(): void {
    const size = Math.min(this.most, Math.max(FIRST_TOKENS, this.held.length * 2));
    const added = size * HISTORY_TOKEN_BYTES - this.taken;
    if (!this.budget.take(added)) return;
    this.taken += added;
    this.held = doubled(this.held, size);
    this.shortPrevious = doubled(this.shortPrevious, size);
    this.longPrevious = doubled(this.longPrevious, size);
    this.shortHeads = repeated(this.shortHeads, size);
    this.longHeads = repeated(this.longHeads, size);
  }
}

function doubled(old: Int32Array, size: number): Int32Array<ArrayBuffer> {
  const grown = new Int32Array(size);
  grown.set(old);
  return grown;
}

function repeated(old: Int32Array, size: number): Int32Array<ArrayBuffer> {
  const grown = new Int32Array(size);
  for (let at = 0; at < size && old.length > 0; at += old.length) grown.set(old, at);
  return grown;
}

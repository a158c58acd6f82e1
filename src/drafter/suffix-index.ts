/**
 * What a slot holds (prompt and output), and where the tokens at hand occurred in it before. Earlier occurrences are
 * linked in chains by the hash of their last 2 and last 5 tokens; a chain is walked from the most recent one back and every hit is
 * compared token by token, so matches of all lengths are found and none is false. Appending is O(1); so is dropping a token from the end.
 */

/** Orders of the chains: the long one finds old long matches that many recent short ones would hide. */
const SHORT = 2;
const LONG = 5;

/** What `match` found: the tokens that followed earlier occurrences, strongest evidence first. */
export interface SuffixMatches {
  count: number;
  token: Int32Array;
  /** Length in tokens of the longest match that this token followed. */
  length: Int32Array;
  /** Share of this token in the evidence of all matches, 0 … 1. */
  share: Float32Array;
}

export interface SuffixIndexOptions {
  /** Most tokens compared per occurrence. @default 16 */
  maxMatch?: number;
  /** Most occurrences looked at per chain. @default 12 */
  maxOccurrences?: number;
}

export class SuffixIndex {
  readonly maxMatch: number;
  private readonly maxOccurrences: number;
  private held = new Int32Array(256);
  private count = 0;
  private shortPrevious = new Int32Array(256);
  private longPrevious = new Int32Array(256);
  /** Position + 1 of the latest occurrence by hash, 0 if none. Twice as long as `held`. */
  private shortHeads = new Int32Array(512);
  private longHeads = new Int32Array(512);

  constructor(options: SuffixIndexOptions = {}) {
    this.maxMatch = options.maxMatch ?? 16;
    this.maxOccurrences = options.maxOccurrences ?? 12;
  }

  /** Tokens held. */
  get length(): number {
    return this.count;
  }

  /** The token at a position, or -1 outside. */
  at(position: number): number {
    return position >= 0 && position < this.count ? this.held[position] : -1;
  }

  append(token: number): void {
    if (this.count === this.held.length) this.grow();
    const at = this.count++;
    this.held[at] = token;
    this.link(at);
  }

  /** Keeps the first `length` tokens. What it never held is filled with -1, so that positions stay right. */
  truncate(length: number): void {
    while (this.count < length) this.append(-1);
    for (let at = this.count - 1; at >= length; at--) {
      if (at >= SHORT - 1) this.shortHeads[this.hash(at, SHORT)] = this.shortPrevious[at];
      if (at >= LONG - 1) this.longHeads[this.hash(at, LONG)] = this.longPrevious[at];
    }
    this.count = length;
  }

  /**
   * The tokens that followed where the context occurred before.
   *
   * @param context the last tokens, newest first
   * @param n how many of them are given; fewer than 2 match nothing
   * @param out filled in place; its arrays' length bounds the number of candidates
   */
  match(context: Int32Array, n: number, out: SuffixMatches): number {
    out.count = 0;
    if (n < SHORT || this.count < SHORT + 1) return 0;
    const deepest = Math.min(n, this.maxMatch);
    const mask = this.shortHeads.length - 1;
    let total = 0;
    if (n >= LONG) {
      const head = this.longHeads[hashNewestFirst(context, LONG) & mask];
      total += this.walk(context, deepest, head, this.longPrevious, LONG, deepest, out);
    }
    const head = this.shortHeads[hashNewestFirst(context, SHORT) & mask];
    const most = n >= LONG ? LONG - 1 : deepest;
    total += this.walk(context, deepest, head, this.shortPrevious, SHORT, most, out);
    if (total > 0) {
      for (let i = 0; i < out.count; i++) out.share[i] /= total;
      sortByShare(out);
    }
    return out.count;
  }

  /** Walks one chain, taking matches of `least` … `most` tokens; returns the evidence added. */
  private walk(
    context: Int32Array,
    deepest: number,
    head: number,
    previous: Int32Array,
    least: number,
    most: number,
    out: SuffixMatches,
  ): number {
    const { held, count } = this;
    let total = 0;
    let recency = 1;
    let at = head - 1;
    for (let seen = 0; at >= 0 && seen < this.maxOccurrences; seen++, at = previous[at] - 1) {
      if (at + 1 >= count) continue;
      let length = 0;
      while (length < deepest && length <= at && held[at - length] === context[length]) length++;
      if (length < least || length > most) continue;
      const next = held[at + 1];
      if (next < 0) continue;
      const weight = length * length * length * recency;
      recency *= 0.9;
      let i = 0;
      while (i < out.count && out.token[i] !== next) i++;
      if (i === out.count) {
        if (i === out.token.length) continue;
        out.count++;
        out.token[i] = next;
        out.length[i] = length;
        out.share[i] = weight;
      } else {
        out.share[i] += weight;
        if (length > out.length[i]) out.length[i] = length;
      }
      total += weight;
    }
    return total;
  }

  private link(at: number): void {
    if (at >= SHORT - 1) {
      const h = this.hash(at, SHORT);
      this.shortPrevious[at] = this.shortHeads[h];
      this.shortHeads[h] = at + 1;
    }
    if (at >= LONG - 1) {
      const h = this.hash(at, LONG);
      this.longPrevious[at] = this.longHeads[h];
      this.longHeads[h] = at + 1;
    }
  }

  private hash(at: number, order: number): number {
    const { held } = this;
    let h = 0;
    for (let i = 0; i < order; i++) h = mix(h, held[at - i]);
    return (h ^ (h >>> 15)) & (this.shortHeads.length - 1);
  }

  private grow(): void {
    const size = this.held.length * 2;
    const held = new Int32Array(size);
    held.set(this.held);
    this.held = held;
    this.shortPrevious = new Int32Array(size);
    this.longPrevious = new Int32Array(size);
    this.shortHeads = new Int32Array(size * 2);
    this.longHeads = new Int32Array(size * 2);
    for (let at = 0; at < this.count; at++) this.link(at);
  }
}

function mix(h: number, token: number): number {
  return Math.imul(h ^ Math.imul(token + 2, 0x9e3779b1), 0x85ebca77) + 0x165667b1;
}

function hashNewestFirst(context: Int32Array, order: number): number {
  let h = 0;
  for (let i = 0; i < order; i++) h = mix(h, context[i]);
  return h ^ (h >>> 15);
}

function sortByShare(out: SuffixMatches): void {
  for (let i = 1; i < out.count; i++) {
    const token = out.token[i];
    const length = out.length[i];
    const share = out.share[i];
    let j = i - 1;
    while (j >= 0 && out.share[j] < share) {
      out.token[j + 1] = out.token[j];
      out.length[j + 1] = out.length[j];
      out.share[j + 1] = out.share[j];
      j--;
    }
    out.token[j + 1] = token;
    out.length[j + 1] = length;
    out.share[j + 1] = share;
  }
}

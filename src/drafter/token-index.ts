/**
 * Where the tokens at hand occurred before in a text: what the index of one slot and the history of a scope have in common. Earlier
 * occurrences are linked in two chains, by the hash of their last tokens; a chain is walked from the most recent one back and every hit is
 * compared token by token, so matches of all lengths are found and none is false.
 */

/** What `match` found: the tokens that followed earlier occurrences, strongest evidence first. */
export interface SuffixMatches {
  count: number;
  token: Int32Array;
  /** Length in tokens of the longest match that this token followed. */
  length: Int32Array;
  /** Share of this token in the evidence of all matches, 0 … 1. */
  share: Float32Array;
  /** Length of the longest match of all, 0 if there is none. */
  longest: number;
}

export interface TokenIndexOptions {
  /** Tokens that the short chain's hash takes in; shorter matches are not found. */
  short: number;
  /** The same for the long chain, which finds old long matches that many recent short ones would hide. */
  long: number;
  /** Most tokens compared per occurrence. */
  maxMatch: number;
  /** Most occurrences looked at per chain. */
  maxOccurrences: number;
}

/** An occurrence weighs less by this factor for every more recent one. */
const RECENCY = 0.9;

export abstract class TokenIndex {
  readonly short: number;
  readonly long: number;
  readonly maxMatch: number;
  protected readonly maxOccurrences: number;
  /** The token of position p lies at p & (length - 1). Length is a power of two. */
  protected held = new Int32Array(256);
  protected count = 0;
  /** Position + 1 of the occurrence before, 0 if none; same places as `held`. */
  protected shortPrevious = new Int32Array(256);
  protected longPrevious = new Int32Array(256);
  /** Position + 1 of the latest occurrence by hash, 0 if none. */
  protected shortHeads = new Int32Array(512);
  protected longHeads = new Int32Array(512);
  /** Evidence of all matches of a walk. In an array, since a number with a fraction that a loop or a call hands on is allocated anew each time. */
  private readonly total = new Float64Array(1);
  /** Weight of an occurrence, by how many more recent ones there are. */
  private readonly recency: Float64Array;

  constructor(options: TokenIndexOptions) {
    this.short = options.short;
    this.long = options.long;
    this.maxMatch = options.maxMatch;
    this.maxOccurrences = options.maxOccurrences;
    this.recency = new Float64Array(options.maxOccurrences).fill(1);
    for (let i = 1; i < this.recency.length; i++) this.recency[i] = this.recency[i - 1] * RECENCY;
  }

  /** Tokens appended so far. */
  get length(): number {
    return this.count;
  }

  /** Position of the oldest token that is held. */
  get oldest(): number {
    return Math.max(0, this.count - this.held.length);
  }

  /** The token at a position, or -1 where none is held. */
  at(position: number): number {
    const { held, count } = this;
    return position >= 0 && position < count && position >= count - held.length
      ? held[position & (held.length - 1)]
      : -1;
  }

  /**
   * The tokens that followed where the context occurred before.
   *
   * @param context the last tokens, newest first
   * @param n how many of them are given; fewer than `short` match nothing
   * @param out filled in place; its arrays' length bounds the number of candidates
   */
  match(context: Int32Array, n: number, out: SuffixMatches): number {
    out.count = 0;
    out.longest = 0;
    const { short, long } = this;
    if (n < short || this.count < short + 1) return 0;
    const deepest = Math.min(n, this.maxMatch);
    this.total[0] = 0;
    if (n >= long) {
      const head = this.longHeads[hashNewestFirst(context, long) & (this.longHeads.length - 1)];
      this.walk(context, deepest, head, this.longPrevious, long, deepest, out);
    }
    const head = this.shortHeads[hashNewestFirst(context, short) & (this.shortHeads.length - 1)];
    const most = n >= long ? long - 1 : deepest;
    this.walk(context, deepest, head, this.shortPrevious, short, most, out);
    const total = this.total[0];
    if (total > 0) {
      for (let i = 0; i < out.count; i++) {
        out.share[i] /= total;
        if (out.length[i] > out.longest) out.longest = out.length[i];
      }
      sortByShare(out);
    }
    return out.count;
  }

  /**
   * Checks every invariant (for tests; reads everything): chains fall, stay within what is held and, from the newest token on, find each
   * position that a walk may look at. Returns what is broken, in words; empty if nothing is.
   */
  checkIntegrity(): string[] {
    const faults: string[] = [];
    const { held, count } = this;
    const mask = held.length - 1;
    if (held.length > 0 && (held.length & mask) !== 0)
      faults.push(`${held.length} places are no power of two`);
    for (const [order, heads, previous] of [
      [this.short, this.shortHeads, this.shortPrevious],
      [this.long, this.longHeads, this.longPrevious],
    ] as const) {
      if (previous.length !== held.length) faults.push(`${previous.length} links for ${held.length} places`);
      const oldest = Math.max(order - 1, count - held.length);
      const reached = new Set<number>();
      for (const [hash, head] of heads.entries()) {
        let before = count;
        for (let at = head - 1; at >= count - held.length && at >= 0; at = previous[at & mask] - 1) {
          if (at >= before) {
            faults.push(`chain ${hash} of order ${order} does not fall at ${at}`);
            break;
          }
          before = at;
          if ((this.hash(at, order) & (heads.length - 1)) === hash) reached.add(at);
        }
      }
      for (let at = oldest; at < count; at++) {
        // the first tokens of what a ring holds have lost what their hash was made from
        if (at - order + 1 < count - held.length) continue;
        if (!reached.has(at)) faults.push(`position ${at} is in no chain of order ${order}`);
      }
    }
    return faults;
  }

  /** Puts the newest token into its chains. */
  protected link(at: number): void {
    const place = at & (this.held.length - 1);
    if (at >= this.short - 1) {
      const h = this.hash(at, this.short) & (this.shortHeads.length - 1);
      this.shortPrevious[place] = this.shortHeads[h];
      this.shortHeads[h] = at + 1;
    }
    if (at >= this.long - 1) {
      const h = this.hash(at, this.long) & (this.longHeads.length - 1);
      this.longPrevious[place] = this.longHeads[h];
      this.longHeads[h] = at + 1;
    }
  }

  protected hash(at: number, order: number): number {
    const { held } = this;
    const mask = held.length - 1;
    let h = 0;
    for (let i = 0; i < order; i++) h = mix(h, held[(at - i) & mask]);
    return h ^ (h >>> 15);
  }

  /** Walks one chain, taking matches of `least` … `most` tokens, and adds their evidence to `total`. */
  private walk(
    context: Int32Array,
    deepest: number,
    head: number,
    previous: Int32Array,
    least: number,
    most: number,
    out: SuffixMatches,
  ): void {
    const { held, count, total, recency } = this;
    const mask = held.length - 1;
    const oldest = Math.max(0, count - held.length);
    let hits = 0;
    let at = head - 1;
    for (let seen = 0; at >= oldest && seen < this.maxOccurrences; seen++, at = previous[at & mask] - 1) {
      if (at + 1 >= count) continue;
      let length = 0;
      while (length < deepest && at - length >= oldest && held[(at - length) & mask] === context[length])
        length++;
      if (length < least || length > most) continue;
      const next = held[(at + 1) & mask];
      if (next < 0) continue;
      const weight = length * length * length * recency[hits++];
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
      total[0] += weight;
    }
  }
}

function mix(h: number, token: number): number {
  return Math.imul(h ^ Math.imul(token + 2, 0x9e3779b1), 0x85ebca77) + 0x165667b1;
}

/** The hash of a single token, as chains of order 1 have it. */
export function hashOne(token: number): number {
  const h = mix(0, token);
  return h ^ (h >>> 15);
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

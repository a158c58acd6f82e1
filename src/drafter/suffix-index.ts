/**
 * What a slot holds (prompt and output), and where the tokens at hand occurred in it before (token-index.ts). Appending is
 * O(1); so is dropping a token from the end.
 */
import { hashOne, TokenIndex } from "./token-index.ts";

export interface SuffixIndexOptions {
  /** Most tokens compared per occurrence. @default 16 */
  maxMatch?: number;
  /** Most occurrences looked at per chain. @default 12 */
  maxOccurrences?: number;
}

export class SuffixIndex extends TokenIndex {
  constructor(options: SuffixIndexOptions = {}) {
    super({
      short: 1,
      long: 4,
      maxMatch: options.maxMatch ?? 16,
      maxOccurrences: options.maxOccurrences ?? 12,
    });
  }

  /** How many tokens ago a token stood last, 0 for the newest; -1 if it never did. */
  ago(token: number): number {
    const { held, count } = this;
    const head = this.shortHeads[hashOne(token) & (this.shortHeads.length - 1)];
    for (let at = head - 1; at >= 0; at = this.shortPrevious[at] - 1)
      if (held[at] === token) return count - 1 - at;
    return -1;
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
    const { short, long } = this;
    for (let at = this.count - 1; at >= length; at--) {
      if (at >= short - 1)
        this.shortHeads[this.hash(at, short) & (this.shortHeads.length - 1)] = this.shortPrevious[at];
      if (at >= long - 1)
        this.longHeads[this.hash(at, long) & (this.longHeads.length - 1)] = this.longPrevious[at];
    }
    this.count = length;
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

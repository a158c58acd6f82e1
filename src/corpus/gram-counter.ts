/**
 * Counts 3-grams in a fixed amount of memory: an open-addressed table of typed arrays. When it is full its counts go out as one
 * part, and the parts are added up later (count.sql); a window of a million 3-grams halves what has to be added up.
 */

/** No count may reach 2^31. */
const MOST_TOTAL = 2 ** 30;

export class GramCounter {
  readonly #shift: number;
  readonly #mask: number;
  readonly #most: number;
  readonly #a: Int32Array;
  readonly #b: Int32Array;
  readonly #c: Int32Array;
  /** 0: a free slot. */
  readonly #n: Int32Array;
  #size = 0;
  #checksum = 0;
  /** All that was added. */
  #total = 0;

  /** @param slotsLog2 log2 of the slots, each of 16 bytes. @default 20 (16 MiB) */
  constructor(slotsLog2 = 20) {
    const slots = 2 ** slotsLog2;
    this.#shift = 32 - slotsLog2;
    this.#mask = slots - 1;
    this.#most = Math.floor(slots * 0.7);
    this.#a = new Int32Array(slots);
    this.#b = new Int32Array(slots);
    this.#c = new Int32Array(slots);
    this.#n = new Int32Array(slots);
  }

  /** Different 3-grams held. */
  get size(): number {
    return this.#size;
  }

  /** Sum of n · gramHash over everything that was ever added, modulo 2^32. */
  get checksum(): number {
    return this.#checksum >>> 0;
  }

  /** True when it has to be emptied before more is added. */
  get full(): boolean {
    return this.#size >= this.#most || this.#total >= MOST_TOTAL;
  }

  /** Counts the 3-gram (a, b, c) `n` times; `n` at least 1. */
  add(a: number, b: number, c: number, n = 1): void {
    this.#total += n;
    const hash = gramHash(a, b, c);
    this.#checksum = (this.#checksum + Math.imul(hash, n)) | 0;
    const ns = this.#n;
    const mask = this.#mask;
    for (let at = hash >>> this.#shift; ; at = (at + 1) & mask) {
      if (ns[at] === 0) {
        this.#a[at] = a;
        this.#b[at] = b;
        this.#c[at] = c;
        ns[at] = n;
        this.#size++;
        return;
      }
      if (this.#c[at] === c && this.#b[at] === b && this.#a[at] === a) {
        ns[at] += n;
        return;
      }
    }
  }

  /** Calls `visit` for each 3-gram, in no particular order, and forgets them all. */
  drain(visit: (a: number, b: number, c: number, n: number) => void): void {
    const ns = this.#n;
    for (let at = 0; at < ns.length; at++) {
      if (ns[at] > 0) visit(this.#a[at], this.#b[at], this.#c[at], ns[at]);
    }
    ns.fill(0);
    this.#size = 0;
    this.#total = 0;
  }
}

/** 32 well-mixed bits of a 3-gram. Part of the file format: the checksum is made of it. */
export function gramHash(a: number, b: number, c: number): number {
  const hash = Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca77) ^ Math.imul(c, 0xc2b2ae3d);
  return Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
}

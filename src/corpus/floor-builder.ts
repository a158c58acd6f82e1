/**
 * Packs pruned rows into a floor, within a bound in bytes. Rows come in the order of their tokens, once. When the bound is
 * reached the rows of the rarest pairs go, and rarer ones are not taken any more. Most pairs of any text occur once, so that among equally rare
 * ones a share is kept, chosen by their hash.
 */
import { floorBytes, floorViews, MOST_VOCAB, packEntry, sealFloor } from "./floor.ts";
import { gramHash } from "./gram-counter.ts";
import type { PairRow } from "./pair-rows.ts";

/** What one dropping of rows has to free at least, as a share of all. */
const FREED_SHARE = 0.25;
const FIRST_ROWS = 4096;

export class FloorBuilder {
  readonly #nVocab: number;
  readonly #width: number;
  readonly #bound: number;
  #rows = 0;
  #entryCount = 0;
  #a = new Int32Array(FIRST_ROWS);
  #b = new Int32Array(FIRST_ROWS);
  #total = new Float32Array(FIRST_ROWS);
  #size = new Uint8Array(FIRST_ROWS);
  #entries = new Uint32Array(4 * FIRST_ROWS);
  /** Rows of pairs that occur less often are not taken, and of those that occur as often only a share. */
  #rare = 0;
  #rareShare = 1;
  #dropped = 0;

  /**
   * @param width most successors of a row, at most 255
   * @param bound bytes that the floor may take
   */
  constructor(nVocab: number, width: number, bound: number) {
    if (nVocab > MOST_VOCAB)
      throw new RangeError(`a vocabulary of ${nVocab} tokens is too large for a floor`);
    this.#nVocab = nVocab;
    this.#width = width;
    this.#bound = bound;
  }

  /** Rows held. */
  get rows(): number {
    return this.#rows;
  }

  /** Rows that were left out or dropped to keep within the bound. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Adds the row of (a, b), after all that come before it; `a` may be nVocab: the bi-gram row of b. */
  add(a: number, b: number, row: PairRow): void {
    if (!this.#isTaken(a, b, Math.fround(row.total))) {
      this.#dropped++;
      return;
    }
    const size = Math.min(row.size, this.#width);
    this.#grow(size);
    const at = this.#rows++;
    this.#a[at] = a;
    this.#b[at] = b;
    this.#total[at] = row.total;
    this.#size[at] = size;
    for (let i = 0; i < size; i++) {
      this.#entries[this.#entryCount++] = packEntry(row.ids[i], row.counts[i] / row.total);
    }
    while (this.#rows > 0 && this.#bytes() > this.#bound) this.#dropRarest();
  }

  /** The floor's buffer, which threads can share. */
  finish(): SharedArrayBuffer {
    const sizes = { nVocab: this.#nVocab, rows: this.#rows, entries: this.#entryCount, width: this.#width };
    const buffer = new SharedArrayBuffer(floorBytes(sizes));
    const views = floorViews(buffer, sizes);
    let a = 0;
    let entry = 0;
    for (let row = 0; row < this.#rows; row++) {
      while (a <= this.#a[row]) views.firstRow[a++] = row;
      views.b[row] = this.#b[row];
      views.firstEntry[row] = entry;
      views.seen[row] = Math.max(1, Math.min(255, Math.round(this.#total[row])));
      entry += this.#size[row];
    }
    while (a < this.#nVocab + 2) views.firstRow[a++] = this.#rows;
    views.firstEntry[this.#rows] = entry;
    views.entries.set(this.#entries.subarray(0, entry));
    sealFloor(views, sizes);
    return buffer;
  }

  #bytes(): number {
    return floorBytes({
      nVocab: this.#nVocab,
      rows: this.#rows,
      entries: this.#entryCount,
      width: this.#width,
    });
  }

  #grow(size: number): void {
    if (this.#rows === this.#a.length) {
      this.#a = grown(this.#a, new Int32Array(2 * this.#rows));
      this.#b = grown(this.#b, new Int32Array(2 * this.#rows));
      this.#total = grown(this.#total, new Float32Array(2 * this.#rows));
      this.#size = grown(this.#size, new Uint8Array(2 * this.#rows));
    }
    if (this.#entryCount + size > this.#entries.length) {
      this.#entries = grown(this.#entries, new Uint32Array(2 * this.#entries.length));
    }
  }

  #isTaken(a: number, b: number, total: number): boolean {
    return total > this.#rare || (total === this.#rare && pairShare(a, b) < this.#rareShare);
  }

  #dropRarest(): void {
    this.#raise();
    let to = 0;
    let from = 0;
    let toEntry = 0;
    for (let row = 0; row < this.#rows; row++) {
      const size = this.#size[row];
      if (this.#isTaken(this.#a[row], this.#b[row], this.#total[row])) {
        this.#a[to] = this.#a[row];
        this.#b[to] = this.#b[row];
        this.#total[to] = this.#total[row];
        this.#size[to++] = size;
        this.#entries.copyWithin(toEntry, from, from + size);
        toEntry += size;
      }
      from += size;
    }
    this.#dropped += this.#rows - to;
    this.#rows = to;
    this.#entryCount = toEntry;
  }

  /** Raises what is too rare by as much as leaves out a quarter of the rows. */
  #raise(): void {
    const sorted = this.#total.slice(0, this.#rows).sort();
    const leave = Math.ceil(sorted.length * FREED_SHARE);
    const rare = sorted[leave - 1];
    const first = sorted.indexOf(rare);
    const equal = sorted.lastIndexOf(rare) + 1 - first;
    const before = rare === this.#rare ? this.#rareShare : 1;
    this.#rare = rare;
    this.#rareShare = before * (1 - (leave - first) / equal);
  }
}

/** A number from 0 to 1 that is the pair's own. */
function pairShare(a: number, b: number): number {
  return (gramHash(a, b, 0) >>> 0) / 2 ** 32;
}

function grown<T extends { set(from: T): void }>(from: T, to: T): T {
  to.set(from);
  return to;
}

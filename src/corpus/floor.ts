/**
 * The floor under the live matrix: the rows of a model's corpora, pruned, read-only, shared by all scopes. One ArrayBuffer, which threads
 * can share: the process that reads the corpora packs it, the drafter's thread looks rows up in it, and nothing is copied or inserted while
 * it serves. Imports nothing of ours.
 */

/** Stands for "no token" in a key: (NO_TOKEN, b) is the bi-gram row of b. The same as the matrix's. */
export const NO_TOKEN = -1;

/** What a drafter needs of a corpus. Nothing throws, nothing is allocated. */
export interface CorpusFloor {
  /** Number of the row of (a, b), or -1. `a` may be NO_TOKEN. */
  find(a: number, b: number): number;
  /**
   * Copies a row's successors, likeliest first, into `ids` and `probs` (at least `width` long); returns how many there are.
   * Their probabilities are shares of the pair's occurrences in the corpus.
   */
  read(row: number, ids: Int32Array, probs: Float32Array): number;
  /** How often the row's pair occurred in the corpus, at most 255. */
  seen(row: number): number;
  readonly rowCount: number;
  /** Most successors of a row. */
  readonly width: number;
  /** Bytes of memory. */
  readonly bytes: number;
}

const MAGIC = 0x464c4f52;
const VERSION = 1;
const HEADER_WORDS = 8;

/** A successor is 20 bits of token and 12 bits of probability. */
export const MOST_VOCAB = 2 ** 20;
const PROB_BITS = 12;
const PROB_STEPS = 2 ** PROB_BITS - 1;
/** Smallest probability that is told apart: e^-10. */
const LOG_RANGE = 10;

/** exp of the stored steps. */
const PROBS = Float32Array.from({ length: PROB_STEPS + 1 }, (_, q) =>
  Math.exp((-LOG_RANGE * q) / PROB_STEPS),
);

/** @param prob in (0, 1] */
export function packEntry(id: number, prob: number): number {
  const steps = Math.round((-Math.log(prob) * PROB_STEPS) / LOG_RANGE);
  return ((id << PROB_BITS) | Math.min(PROB_STEPS, Math.max(0, steps))) >>> 0;
}

export interface FloorSizes {
  nVocab: number;
  rows: number;
  entries: number;
  width: number;
}

/** Bytes of a floor. */
export function floorBytes({ nVocab, rows, entries }: FloorSizes): number {
  // header, first row of each a (and of NO_TOKEN), b and first entry of each row, entries, seen
  return (HEADER_WORDS + nVocab + 2 + rows + rows + 1 + entries) * 4 + rows;
}

/** The parts of a floor's buffer. */
export interface FloorViews {
  header: Int32Array;
  /** Where the rows of each a begin; that of NO_TOKEN stands last. Length nVocab + 2. */
  firstRow: Uint32Array;
  /** Second token of each row, ascending within an a. */
  b: Int32Array;
  /** Where the successors of each row begin. Length rows + 1. */
  firstEntry: Uint32Array;
  entries: Uint32Array;
  seen: Uint8Array;
}

export function floorViews(buffer: ArrayBufferLike, { nVocab, rows, entries }: FloorSizes): FloorViews {
  let at = 0;
  const words = (n: number): number => {
    at += n * 4;
    return at - n * 4;
  };
  return {
    header: new Int32Array(buffer, words(HEADER_WORDS), HEADER_WORDS),
    firstRow: new Uint32Array(buffer, words(nVocab + 2), nVocab + 2),
    b: new Int32Array(buffer, words(rows), rows),
    firstEntry: new Uint32Array(buffer, words(rows + 1), rows + 1),
    entries: new Uint32Array(buffer, words(entries), entries),
    seen: new Uint8Array(buffer, at, rows),
  };
}

/** Writes the header. */
export function sealFloor(views: FloorViews, { nVocab, rows, entries, width }: FloorSizes): void {
  views.header.set([MAGIC, VERSION, nVocab, rows, entries, width]);
}

/** A floor in a buffer that `sealFloor` finished. */
export class FloorTable implements CorpusFloor {
  readonly rowCount: number;
  readonly width: number;
  readonly bytes: number;
  readonly #nVocab: number;
  readonly #views: FloorViews;

  /** @throws Error when the buffer holds no floor */
  constructor(buffer: ArrayBufferLike) {
    const header = new Int32Array(buffer, 0, HEADER_WORDS);
    const [magic, version, nVocab, rows, entries, width] = header;
    const sizes = { nVocab, rows, entries, width };
    if (magic !== MAGIC || version !== VERSION || floorBytes(sizes) !== buffer.byteLength) {
      throw new Error("this is no floor of version 1");
    }
    this.rowCount = rows;
    this.width = width;
    this.bytes = buffer.byteLength;
    this.#nVocab = nVocab;
    this.#views = floorViews(buffer, sizes);
  }

  find(a: number, b: number): number {
    const key = a === NO_TOKEN ? this.#nVocab : a;
    if (!(key >= 0 && key <= this.#nVocab)) return -1;
    const { firstRow, b: second } = this.#views;
    let low = firstRow[key];
    let high = firstRow[key + 1] - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const found = second[middle];
      if (found === b) return middle;
      if (found < b) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  read(row: number, ids: Int32Array, probs: Float32Array): number {
    const { firstEntry, entries } = this.#views;
    const first = firstEntry[row];
    const size = firstEntry[row + 1] - first;
    for (let i = 0; i < size; i++) {
      const entry = entries[first + i];
      ids[i] = entry >>> PROB_BITS;
      probs[i] = PROBS[entry & PROB_STEPS];
    }
    return size;
  }

  seen(row: number): number {
    return this.#views.seen[row];
  }
}

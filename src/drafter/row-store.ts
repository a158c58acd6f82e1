/**
 * The rows of a tri-gram matrix: keys, entries and marks in chunks of typed arrays. A chunk is one ArrayBuffer, so that
 * growing copies nothing and an idle store is small. Rows are numbered; row r lies in chunk r >>> shift.
 */
import type { MemoryBudget } from "./memory-budget.ts";

export interface RowChunk {
  /** Successors of each row, likeliest first. Length rows * width. */
  ids: Int32Array;
  /** Their probabilities. Length rows * width. */
  probs: Float32Array;
  keyA: Int32Array;
  keyB: Int32Array;
  /** Entries in use, 0 … width. */
  size: Uint8Array;
  /** Updates so far, saturating at 255: how far the row can be trusted. */
  seen: Uint8Array;
  /** Second-chance mark of the clock, saturating at 3. */
  use: Uint8Array;
}

export class RowStore {
  readonly width: number;
  readonly shift: number;
  readonly mask: number;
  readonly chunkBytes: number;
  readonly chunks: RowChunk[] = [];
  /** All rows below this number are live. */
  count = 0;
  private readonly budget: MemoryBudget;

  /**
   * @param width most entries per row
   * @param shift log2 of the rows per chunk
   */
  constructor(width: number, shift: number, budget: MemoryBudget) {
    this.width = width;
    this.shift = shift;
    this.mask = (1 << shift) - 1;
    this.chunkBytes = (1 << shift) * (width * 8 + 11);
    this.budget = budget;
  }

  get bytes(): number {
    return this.chunks.length * this.chunkBytes;
  }

  /** A new row, or -1 when the budget is spent. */
  add(): number {
    if (this.count >>> this.shift === this.chunks.length) {
      if (!this.budget.take(this.chunkBytes)) return -1;
      this.chunks.push(createChunk(1 << this.shift, this.width));
    }
    return this.count++;
  }

  /** Copies row `from` over row `to`. */
  copy(from: number, to: number): void {
    const { shift, mask, width } = this;
    const source = this.chunks[from >>> shift];
    const target = this.chunks[to >>> shift];
    const [i, j] = [from & mask, to & mask];
    for (const field of ["keyA", "keyB", "size", "seen", "use"] as const) target[field][j] = source[field][i];
    for (const field of ["ids", "probs"] as const)
      for (let e = 0; e < width; e++) target[field][j * width + e] = source[field][i * width + e];
  }

  /** Gives the last chunk back; its rows are gone, so the caller has taken them out of the index. */
  dropLastChunk(): void {
    this.chunks.pop();
    this.count = Math.min(this.count, this.chunks.length << this.shift);
    this.budget.give(this.chunkBytes);
  }
}

function createChunk(rows: number, width: number): RowChunk {
  const buffer = new ArrayBuffer(rows * (width * 8 + 11));
  let at = 0;
  const words = (n: number) => {
    at += n * 4;
    return at - n * 4;
  };
  return {
    ids: new Int32Array(buffer, words(rows * width), rows * width),
    probs: new Float32Array(buffer, words(rows * width), rows * width),
    keyA: new Int32Array(buffer, words(rows), rows),
    keyB: new Int32Array(buffer, words(rows), rows),
    size: new Uint8Array(buffer, at, rows),
    seen: new Uint8Array(buffer, at + rows, rows),
    use: new Uint8Array(buffer, at + 2 * rows, rows),
  };
}

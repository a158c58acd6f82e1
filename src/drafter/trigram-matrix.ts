/**
 * The adaptive tri-gram matrix: row (a, b) holds the likeliest successors of the tokens a, b with their probabilities,
 * learnt from the model's own distributions (ADED, arXiv 2407.12021, section 3.1). Bi-gram rows (NONE, b) and the uni-gram
 * row (NONE, NONE) live in the same table for back-off.
 *
 * The index is open-addressed and split into 256 shards by hash, each of which grows alone: no step ever waits for
 * one big rehash. Everything allocated is taken from a budget first; when that is spent, the least useful row goes (a clock with a second chance,
 * looking at a bounded number of rows).
 */
import type { MemoryBudget } from "./memory-budget.ts";
import { type RowChunk, RowStore } from "./row-store.ts";

/** Stands for "no token" in a key. */
export const NONE = -1;

const SHARDS = 256;
const FIRST_SHARD_SLOTS = 8;
/** A shard doubles past a load of 3/4, so a row takes at most 4 / 0.375 bytes of index. Set aside with each chunk. */
const INDEX_BYTES_PER_ROW = 11;
/** Entries that fall below this probability are dropped. */
const LEAST_PROB = 1e-4;
const CLOCK_STEPS = 24;
const MOST_USE = 3;

export interface TrigramMatrixOptions {
  /** Most successors kept per row, 1 … 255. @default 12 */
  width?: number;
  /** log2 of the rows allocated at a time. @default 12 (4,096 rows, 428 KiB at width 12) */
  chunkShift?: number;
}

export class TrigramMatrix {
  readonly width: number;
  private readonly rows: RowStore;
  private readonly budget: MemoryBudget;
  /** Row + 1, or 0 for a free slot. */
  private readonly shards: Int32Array[] = [];
  private readonly shardRows = new Int32Array(SHARDS);
  private indexBytes = 0;
  /** Bytes taken from the budget for the index: at least `indexBytes`. */
  private indexReserve = 0;
  private hand = 0;
  private evictions = 0;
  private readonly mergedIds: Int32Array;
  private readonly mergedProbs: Float32Array;

  /** @param budget what it may allocate from, perhaps shared with other matrices */
  constructor(budget: MemoryBudget, options: TrigramMatrixOptions = {}) {
    const width = options.width ?? 12;
    this.width = width;
    this.budget = budget;
    this.rows = new RowStore(width, options.chunkShift ?? 12, budget);
    this.mergedIds = new Int32Array(2 * width);
    this.mergedProbs = new Float32Array(2 * width);
    const empty = new Int32Array(0);
    for (let i = 0; i < SHARDS; i++) this.shards.push(empty);
  }

  /** Rows held. */
  get rowCount(): number {
    return this.rows.count;
  }

  /** Bytes taken from the budget: rows, and what is set aside for their index. */
  get bytes(): number {
    return this.rows.bytes + this.indexReserve;
  }

  /** Bytes by which it grows: one chunk of rows and the index for them. */
  get chunkBytes(): number {
    return this.rows.chunkBytes + (INDEX_BYTES_PER_ROW << this.rows.shift);
  }

  /** True when the next new row needs a new chunk. */
  get wantsChunk(): boolean {
    return this.rows.count >>> this.rows.shift === this.rows.chunks.length;
  }

  /** Rows evicted so far. */
  get evicted(): number {
    return this.evictions;
  }

  /** The row of (a, b), or -1. `a` may be NONE (bi-gram), or both (uni-gram). */
  find(a: number, b: number): number {
    const hash = hashPair(a, b);
    const shard = this.shards[hash >>> 24];
    const mask = shard.length - 1;
    if (mask < 0) return -1;
    const { chunks, shift, mask: inChunk } = this.rows;
    for (let at = hash & mask; ; at = (at + 1) & mask) {
      const row = shard[at] - 1;
      if (row < 0) return -1;
      const chunk = chunks[row >>> shift];
      const i = row & inChunk;
      if (chunk.keyA[i] === a && chunk.keyB[i] === b) return row;
    }
  }

  /**
   * Copies a row's successors, likeliest first, into `ids` and `probs` (at least `width` long), marks the row as useful
   * and returns how many there are.
   */
  read(row: number, ids: Int32Array, probs: Float32Array): number {
    const { chunks, shift, mask, width } = this.rows;
    const chunk = chunks[row >>> shift];
    const i = row & mask;
    const size = chunk.size[i];
    const base = i * width;
    for (let j = 0; j < size; j++) {
      ids[j] = chunk.ids[base + j];
      probs[j] = chunk.probs[base + j];
    }
    if (chunk.use[i] < MOST_USE) chunk.use[i]++;
    return size;
  }

  /** How many updates a row has had, at most 255. */
  seen(row: number): number {
    return this.rows.chunks[row >>> this.rows.shift].seen[row & this.rows.mask];
  }

  /**
   * Moves row (a, b) towards a distribution: new = rate * given + (1 - rate) * old; a new row takes it as it is.
   *
   * @param ids k successors from index `offset` on, likeliest first
   * @param probs their probabilities, same layout
   * @param rates weight of the given distribution, 0 … 1, by the tokens in the key: 0, 1, 2; the first updates of a row weigh at least 1/(updates + 1)
   */
  update(
    a: number,
    b: number,
    ids: Int32Array,
    probs: Float32Array,
    offset: number,
    k: number,
    rates: Float64Array,
  ): void {
    let row = this.find(a, b);
    const isNew = row < 0;
    if (isNew) row = this.insert(a, b);
    if (row < 0) return;
    const { chunks, shift, mask, width } = this.rows;
    const chunk = chunks[row >>> shift];
    const i = row & mask;
    const base = i * width;
    const rowIds = chunk.ids;
    const rowProbs = chunk.probs;
    const { mergedIds, mergedProbs } = this;
    const given = Math.min(k, width);
    const old = isNew ? 0 : chunk.size[i];
    const rate = rates[b === NONE ? 0 : a === NONE ? 1 : 2];
    const weight = isNew ? 1 : Math.max(rate, 1 / (chunk.seen[i] + 1));
    let n = 0;
    for (let j = 0; j < old; j++) {
      mergedIds[n] = rowIds[base + j];
      mergedProbs[n++] = rowProbs[base + j] * (1 - weight);
    }
    for (let j = 0; j < given; j++) {
      const id = ids[offset + j];
      const p = probs[offset + j] * weight;
      if (!(p > 0 && p <= 1)) continue;
      let at = 0;
      while (at < n && mergedIds[at] !== id) at++;
      if (at < n) {
        mergedProbs[at] += p;
      } else {
        mergedIds[n] = id;
        mergedProbs[n++] = p;
      }
    }
    sortDescending(mergedIds, mergedProbs, n);
    let size = Math.min(n, width);
    while (size > 0 && mergedProbs[size - 1] < LEAST_PROB) size--;
    for (let j = 0; j < size; j++) {
      rowIds[base + j] = mergedIds[j];
      rowProbs[base + j] = mergedProbs[j];
    }
    chunk.size[i] = size;
    if (chunk.seen[i] < 255) chunk.seen[i]++;
    if (chunk.use[i] < MOST_USE) chunk.use[i]++;
  }

  /** Bytes of a packed row. */
  get rowBytes(): number {
    return 8 + this.width * 8 + 3;
  }

  /**
   * Copies `n` rows from number `from` on, or fewer where it holds no more: keys a, keys b, ids, probabilities, sizes, updates, marks, each as one
   * array. Returns how many.
   *
   * @param out at least n * rowBytes long
   */
  pack(from: number, n: number, out: ArrayBuffer): number {
    const { chunks, shift, mask, width } = this.rows;
    const rows = Math.max(0, Math.min(n, this.rows.count - from));
    const packed = packedRows(out, rows, width);
    for (let r = 0; r < rows; r++) {
      const chunk = chunks[(from + r) >>> shift];
      const i = (from + r) & mask;
      packed.keyA[r] = chunk.keyA[i];
      packed.keyB[r] = chunk.keyB[i];
      for (let j = 0; j < width; j++) {
        packed.ids[r * width + j] = chunk.ids[i * width + j];
        packed.probs[r * width + j] = chunk.probs[i * width + j];
      }
      packed.size[r] = chunk.size[i];
      packed.seen[r] = chunk.seen[i];
      packed.use[r] = chunk.use[i];
    }
    return rows;
  }

  /**
   * Takes packed rows in, behind those that it holds and as far as there is room. They are found once `index` was called, and until then
   * nothing else may be: a snapshot's rows are millions, and one index for all of them takes a fraction of the time.
   *
   * @param bytes how long the body is
   */
  unpack(body: ArrayBuffer, bytes: number, { rows, width }: { rows: number; width: number }): void {
    if (!(rows >= 0 && width >= 1) || bytes !== rows * (8 + width * 8 + 3)) return;
    const packed = packedRows(body, rows, width);
    const { chunks, shift, mask } = this.rows;
    for (let from = 0; from < rows; ) {
      if (this.wantsChunk && !this.reserveIndex(chunks.length + 1)) return;
      const first = this.rows.add();
      if (first < 0) return;
      const i = first & mask;
      // up to the chunk's end
      const n = Math.min(rows - from, mask + 1 - i);
      this.rows.count += n - 1;
      const chunk = chunks[first >>> shift];
      const part = packedPart(packed, from, n, width);
      chunk.keyA.set(part.keyA, i);
      chunk.keyB.set(part.keyB, i);
      chunk.seen.set(part.seen, i);
      chunk.use.set(part.use, i);
      if (width === this.width) {
        chunk.ids.set(part.ids, i * width);
        chunk.probs.set(part.probs, i * width);
        chunk.size.set(part.size, i);
      } else {
        copyRows(part, width, chunk, i, this.width);
      }
      from += n;
    }
  }

  /** Makes the index anew, after `unpack`. Of rows with the same key, of which a snapshot may hold some, the first one stays. */
  index(): void {
    const { rows } = this;
    const hashes = new Uint32Array(rows.count);
    const from = new Int32Array(SHARDS + 1);
    for (let row = 0; row < rows.count; row++) {
      const hash = this.hashOf(row);
      hashes[row] = hash;
      from[(hash >>> 24) + 1]++;
    }
    for (let s = 0; s < SHARDS; s++) from[s + 1] += from[s];
    // shard by shard, so that each is filled while it lies in the cache
    const ordered = new Int32Array(rows.count);
    const next = from.slice();
    for (let row = 0; row < rows.count; row++) ordered[next[hashes[row] >>> 24]++] = row;
    const repeated: number[] = [];
    this.indexBytes = 0;
    for (let s = 0; s < SHARDS; s++) {
      const inShard = ordered.subarray(from[s], from[s + 1]);
      let slots = inShard.length === 0 ? 0 : FIRST_SHARD_SLOTS;
      while (inShard.length * 4 > slots * 3) slots *= 2;
      const shard = new Int32Array(slots);
      const before = repeated.length;
      for (const row of inShard) if (!this.placeNew(shard, hashes, row)) repeated.push(row);
      this.shards[s] = shard;
      this.shardRows[s] = inShard.length - (repeated.length - before);
      this.indexBytes += shard.byteLength;
    }
    repeated.sort((x, y) => y - x);
    for (const row of repeated) this.fillGap(row);
    // few rows in many shards take more than was set aside with their chunks
    while (!this.reserveIndex(rows.chunks.length) && this.releaseChunk());
  }

  /** Frees the last chunk with all its rows, for another matrix of the same budget. False if there is none. */
  releaseChunk(): boolean {
    const { rows } = this;
    if (rows.chunks.length === 0) return false;
    const first = (rows.chunks.length - 1) << rows.shift;
    for (let row = first; row < rows.count; row++) this.unlink(row);
    this.evictions += Math.max(0, rows.count - first);
    rows.dropLastChunk();
    this.reserveIndex(rows.chunks.length);
    this.hand = 0;
    return true;
  }

  /** Frees everything. */
  clear(): void {
    while (this.rows.chunks.length > 0) this.rows.dropLastChunk();
    const empty = new Int32Array(0);
    for (let i = 0; i < SHARDS; i++) this.shards[i] = empty;
    this.shardRows.fill(0);
    this.indexBytes = 0;
    this.reserveIndex(0);
    this.hand = 0;
  }

  /** Checks every invariant (for tests; reads everything). Returns what is broken, in words; empty if nothing is. */
  checkIntegrity(): string[] {
    const faults: string[] = [];
    const { rows } = this;
    let linked = 0;
    let indexBytes = 0;
    for (let s = 0; s < SHARDS; s++) {
      const shard = this.shards[s];
      indexBytes += shard.byteLength;
      let inShard = 0;
      for (const entry of shard) if (entry !== 0) inShard++;
      if (inShard !== this.shardRows[s])
        faults.push(`shard ${s} counts ${this.shardRows[s]}, holds ${inShard}`);
      if (shard.length > 0 && inShard === shard.length) faults.push(`shard ${s} has no free slot`);
      linked += inShard;
    }
    if (linked !== rows.count) faults.push(`index links ${linked} rows, store has ${rows.count}`);
    if (indexBytes > this.indexReserve) faults.push(`index holds ${indexBytes} B, took ${this.indexReserve}`);
    if (indexBytes !== this.indexBytes) faults.push(`index counts ${this.indexBytes} B, holds ${indexBytes}`);
    for (let row = 0; row < rows.count; row++) {
      const chunk = rows.chunks[row >>> rows.shift];
      const i = row & rows.mask;
      const found = this.find(chunk.keyA[i], chunk.keyB[i]);
      if (found !== row) faults.push(`row ${row} (${chunk.keyA[i]}, ${chunk.keyB[i]}) is found as ${found}`);
      let sum = 0;
      for (let j = 0; j < chunk.size[i]; j++) {
        const p = chunk.probs[i * rows.width + j];
        sum += p;
        if (!(p >= LEAST_PROB && p <= 1.001)) faults.push(`row ${row} entry ${j} has probability ${p}`);
        if (j > 0 && p > chunk.probs[i * rows.width + j - 1]) faults.push(`row ${row} is not sorted at ${j}`);
        for (let l = 0; l < j; l++) {
          if (chunk.ids[i * rows.width + l] === chunk.ids[i * rows.width + j])
            faults.push(`row ${row} repeats a token`);
        }
      }
      if (sum > 1.01) faults.push(`row ${row} sums to ${sum}`);
    }
    if (this.budget.used > this.budget.limit)
      faults.push(`${this.budget.used} B used of ${this.budget.limit}`);
    return faults;
  }

  /** A row for a key that is not there yet; -1 if there is no room at all. */
  private insert(a: number, b: number): number {
    const hash = hashPair(a, b);
    const s = hash >>> 24;
    const slots = this.shards[s].length;
    let row = -1;
    if ((this.shardRows[s] + 1) * 4 > slots * 3 && !this.growShard(s) && this.shardRows[s] + 1 >= slots) {
      // The shard is full and may not grow: one of its own rows makes way.
      if (slots === 0) return -1;
      row = this.evictFromShard(hash);
    }
    if (row < 0 && (!this.wantsChunk || this.reserveIndex(this.rows.chunks.length + 1)))
      row = this.rows.add();
    if (row < 0) row = this.evictByClock();
    if (row < 0) return -1;
    const chunk = this.rows.chunks[row >>> this.rows.shift];
    const i = row & this.rows.mask;
    chunk.keyA[i] = a;
    chunk.keyB[i] = b;
    chunk.size[i] = 0;
    chunk.seen[i] = 0;
    chunk.use[i] = 0;
    place(this.shards[s], hash, row);
    this.shardRows[s]++;
    return row;
  }

  private growShard(s: number): boolean {
    const old = this.shards[s];
    const slots = old.length === 0 ? FIRST_SHARD_SLOTS : old.length * 2;
    const added = slots * 4 - old.byteLength;
    this.indexBytes += added;
    if (!this.reserveIndex(this.rows.chunks.length)) {
      this.indexBytes -= added;
      return false;
    }
    const grown = new Int32Array(slots);
    for (const entry of old) if (entry !== 0) place(grown, this.hashOf(entry - 1), entry - 1);
    this.shards[s] = grown;
    return true;
  }

  /** Brings the index's share of the budget to what `chunks` chunks of rows, and the index as it is, need. */
  private reserveIndex(chunks: number): boolean {
    const wanted = Math.max(chunks * (INDEX_BYTES_PER_ROW << this.rows.shift), this.indexBytes);
    if (wanted > this.indexReserve && !this.budget.take(wanted - this.indexReserve)) return false;
    if (wanted < this.indexReserve) this.budget.give(this.indexReserve - wanted);
    this.indexReserve = wanted;
    return true;
  }

  /** Takes the least useful of the next few rows under the clock's hand out of the index; -1 if there are none. */
  private evictByClock(): number {
    const { rows } = this;
    if (rows.count === 0) return -1;
    let victim = -1;
    let least = MOST_USE + 1;
    for (let step = 0; step < CLOCK_STEPS && least > 0; step++) {
      if (this.hand >= rows.count) this.hand = 0;
      const row = this.hand++;
      const chunk = rows.chunks[row >>> rows.shift];
      const i = row & rows.mask;
      if (chunk.use[i] < least) {
        least = chunk.use[i];
        victim = row;
      }
      if (chunk.use[i] > 0) chunk.use[i]--;
    }
    this.unlink(victim);
    this.evictions++;
    return victim;
  }

  /** The same among the next few rows of the shard that a key belongs to: for budgets too small for the index to grow. */
  private evictFromShard(hash: number): number {
    const { chunks, shift, mask: inChunk } = this.rows;
    const shard = this.shards[hash >>> 24];
    const mask = shard.length - 1;
    let victim = -1;
    let least = MOST_USE + 1;
    for (
      let step = 0, at = hash & mask;
      step < shard.length && step < CLOCK_STEPS;
      step++, at = (at + 1) & mask
    ) {
      const row = shard[at] - 1;
      if (row < 0) continue;
      const use = chunks[row >>> shift].use[row & inChunk];
      if (use < least) {
        least = use;
        victim = row;
      }
    }
    this.unlink(victim);
    this.evictions++;
    return victim;
  }

  /** Puts a row into a shard; false if its key is there already. */
  private placeNew(shard: Int32Array, hashes: Uint32Array, row: number): boolean {
    const hash = hashes[row];
    const mask = shard.length - 1;
    let at = hash & mask;
    for (; shard[at] !== 0; at = (at + 1) & mask) {
      const other = shard[at] - 1;
      if (hashes[other] === hash && this.sameKey(other, row)) return false;
    }
    shard[at] = row + 1;
    return true;
  }

  private sameKey(x: number, y: number): boolean {
    const { chunks, shift, mask } = this.rows;
    const [cx, cy] = [chunks[x >>> shift], chunks[y >>> shift]];
    return cx.keyA[x & mask] === cy.keyA[y & mask] && cx.keyB[x & mask] === cy.keyB[y & mask];
  }

  /** Moves the last row to the place of one that is not in the index. */
  private fillGap(row: number): void {
    const { rows } = this;
    const last = rows.count - 1;
    if (row !== last) {
      this.unlink(last);
      rows.copy(last, row);
      const hash = this.hashOf(row);
      place(this.shards[hash >>> 24], hash, row);
      this.shardRows[hash >>> 24]++;
    }
    rows.count--;
  }

  /** Takes a row out of the index and closes the gap (backward shift: no tombstones). */
  private unlink(row: number): void {
    const hash = this.hashOf(row);
    const s = hash >>> 24;
    const shard = this.shards[s];
    const mask = shard.length - 1;
    let hole = hash & mask;
    while (shard[hole] !== row + 1) hole = (hole + 1) & mask;
    for (let at = (hole + 1) & mask; shard[at] !== 0; at = (at + 1) & mask) {
      const home = this.hashOf(shard[at] - 1) & mask;
      if (((at - home) & mask) >= ((at - hole) & mask)) {
        shard[hole] = shard[at];
        hole = at;
      }
    }
    shard[hole] = 0;
    this.shardRows[s]--;
  }

  private hashOf(row: number): number {
    const chunk = this.rows.chunks[row >>> this.rows.shift];
    const i = row & this.rows.mask;
    return hashPair(chunk.keyA[i], chunk.keyB[i]);
  }
}

/** Views on packed rows. */
function packedRows(buffer: ArrayBuffer, rows: number, width: number) {
  const at = rows * (8 + width * 8);
  return {
    keyA: new Int32Array(buffer, 0, rows),
    keyB: new Int32Array(buffer, rows * 4, rows),
    ids: new Int32Array(buffer, rows * 8, rows * width),
    probs: new Float32Array(buffer, rows * (8 + width * 4), rows * width),
    size: new Uint8Array(buffer, at, rows),
    seen: new Uint8Array(buffer, at + rows, rows),
    use: new Uint8Array(buffer, at + 2 * rows, rows),
  };
}

type PackedRows = ReturnType<typeof packedRows>;

/** `n` of packed rows, from number `from` on. */
function packedPart(packed: PackedRows, from: number, n: number, width: number): PackedRows {
  const to = from + n;
  return {
    keyA: packed.keyA.subarray(from, to),
    keyB: packed.keyB.subarray(from, to),
    ids: packed.ids.subarray(from * width, to * width),
    probs: packed.probs.subarray(from * width, to * width),
    size: packed.size.subarray(from, to),
    seen: packed.seen.subarray(from, to),
    use: packed.use.subarray(from, to),
  };
}

/** Copies successors of rows of another width, the likeliest where there are too many. @param at the first row's place in the chunk */
function copyRows(part: PackedRows, width: number, chunk: RowChunk, at: number, own: number): void {
  const kept = Math.min(width, own);
  for (let r = 0; r < part.size.length; r++) {
    for (let j = 0; j < kept; j++) {
      chunk.ids[(at + r) * own + j] = part.ids[r * width + j];
      chunk.probs[(at + r) * own + j] = part.probs[r * width + j];
    }
    chunk.size[at + r] = Math.min(kept, part.size[r]);
  }
}

/** 32 well-mixed bits, as an int32: the upper 8 choose the shard, the lower ones the slot. */
function hashPair(a: number, b: number): number {
  let h = Math.imul(a + 1, 0x9e3779b1) ^ Math.imul(b + 1, 0x85ebca77);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return h ^ (h >>> 15);
}

function place(shard: Int32Array, hash: number, row: number): void {
  const mask = shard.length - 1;
  let at = hash & mask;
  while (shard[at] !== 0) at = (at + 1) & mask;
  shard[at] = row + 1;
}

/** Insertion sort of two parallel arrays: short and nearly sorted already. */
export function sortDescending(ids: Int32Array, probs: Float32Array, n: number): void {
  for (let i = 1; i < n; i++) {
    const id = ids[i];
    const p = probs[i];
    let j = i - 1;
    while (j >= 0 && probs[j] < p) {
      ids[j + 1] = ids[j];
      probs[j + 1] = probs[j];
      j--;
    }
    ids[j + 1] = id;
    probs[j + 1] = p;
  }
}

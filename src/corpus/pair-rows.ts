/** Rows of the matrix from a sorted stream of 3-grams: for each pair (a, b) its likeliest successors. This is where pruning happens. */
import type { GramStream } from "./gram-stream.ts";

/** One row; reused for the next. */
export interface PairRow {
  a: number;
  b: number;
  /** Occurrences of the pair with any successor. */
  total: number;
  /** Different successors, also those that were pruned. */
  distinct: number;
  /** Successors kept. */
  size: number;
  /** The kept ones, most frequent first, of equally frequent ones the smaller token first. */
  ids: Int32Array;
  /** Their occurrences. */
  counts: Float64Array;
}

/** Calls `visit` for each pair, in the order of the stream. @param topK most successors kept per row */
export async function forEachPair(
  grams: GramStream,
  topK: number,
  visit: (row: PairRow) => void,
): Promise<void> {
  const row: PairRow = {
    a: -1,
    b: -1,
    total: 0,
    distinct: 0,
    size: 0,
    ids: new Int32Array(topK),
    counts: new Float64Array(topK),
  };
  for await (const block of grams) {
    const { a, b, c, n, count } = block;
    for (let i = 0; i < count; i++) {
      if (a[i] !== row.a || b[i] !== row.b) {
        if (row.distinct > 0) visit(row);
        row.a = a[i];
        row.b = b[i];
        row.total = 0;
        row.distinct = 0;
        row.size = 0;
      }
      row.total += n[i];
      row.distinct++;
      insert(row, c[i], n[i], topK);
    }
  }
  if (row.distinct > 0) visit(row);
}

/** Keeps the row sorted; successors come in ascending order, so an equal count stays behind. */
function insert(row: PairRow, id: number, count: number, topK: number): void {
  const { ids, counts } = row;
  let at = row.size;
  if (at === topK) {
    if (count <= counts[topK - 1]) return;
    at--;
  } else {
    row.size++;
  }
  while (at > 0 && counts[at - 1] < count) {
    counts[at] = counts[at - 1];
    ids[at] = ids[at - 1];
    at--;
  }
  counts[at] = count;
  ids[at] = id;
}

/**
 * The 3-grams of corpus files in the order of their tokens, block by block: of one file, or of several merged with weights. Memory is bounded by
 * a block per file. Whoever reads to the end knows that the file was whole: the order, a checksum and the sum of all counts are checked.
 */
import { type CorpusFile, damaged } from "./corpus-file.ts";
import { type Database, literal } from "./database.ts";
import { gramHash } from "./gram-counter.ts";

/** Up to 2048 3-grams, ascending by (a, b, c). The arrays are reused for the next block. */
export interface GramBlock {
  count: number;
  a: Int32Array;
  b: Int32Array;
  c: Int32Array;
  /** How often each occurs, in the units that the stream was asked for. */
  n: Float64Array;
}

export type GramStream = AsyncIterable<GramBlock>;

const BLOCK_ROWS = 2048;

function emptyBlock(): GramBlock {
  return {
    count: 0,
    a: new Int32Array(BLOCK_ROWS),
    b: new Int32Array(BLOCK_ROWS),
    c: new Int32Array(BLOCK_ROWS),
    n: new Float64Array(BLOCK_ROWS),
  };
}

/** @throws AdedError ADED_CORPUS at the latest at the end, when the file is damaged */
export async function* readGrams(database: Database, corpus: CorpusFile): AsyncGenerator<GramBlock> {
  const { file, nVocab } = corpus;
  const block = emptyBlock();
  let total = 0;
  let checksum = 0;
  let la = -1;
  let lb = -1;
  let lc = -1;
  const what = `can't read ${file}`;
  const sql = `SELECT a, b, c, CAST(n AS DOUBLE) FROM read_parquet(${literal(file)})`;
  for await (const chunk of database.chunks(sql, what)) {
    const [as, bs, cs, ns] = [0, 1, 2, 3].map((column) => chunk.getColumnVector(column));
    const count = chunk.rowCount;
    for (let i = 0; i < count; i++) {
      const a = as.getItem(i) as number;
      const b = bs.getItem(i) as number;
      const c = cs.getItem(i) as number;
      const n = ns.getItem(i) as number;
      const ascends = a > la || (a === la && (b > lb || (b === lb && c > lc)));
      if (!ascends || !(n > 0) || a >= nVocab || b < 0 || b >= nVocab || c < 0 || c >= nVocab) {
        throw damaged(file, `(${a}, ${b}, ${c}) × ${n} after (${la}, ${lb}, ${lc})`);
      }
      la = a;
      lb = b;
      lc = c;
      total += n;
      checksum = (checksum + Math.imul(gramHash(a, b, c), n)) | 0;
      block.a[i] = a;
      block.b[i] = b;
      block.c[i] = c;
      block.n[i] = n;
    }
    block.count = count;
    yield block;
  }
  if (checksum >>> 0 !== corpus.checksum) throw damaged(file, "its checksum is another");
  if (total !== corpus.total) throw damaged(file, `its counts add up to ${total}, not to ${corpus.total}`);
}

export interface WeightedStream {
  grams: GramStream;
  /** What each count is multiplied by. */
  weight: number;
}

/** One reader of a stream, standing on a 3-gram. */
interface Cursor {
  next(): Promise<IteratorResult<GramBlock>>;
  block: GramBlock;
  at: number;
  weight: number;
}

/** Several streams as one; counts of the same 3-gram are added up. */
export async function* mergeGrams(streams: readonly WeightedStream[]): AsyncGenerator<GramBlock> {
  const cursors: Cursor[] = [];
  for (const { grams, weight } of streams) {
    const iterator = grams[Symbol.asyncIterator]();
    const first = await iterator.next();
    if (!first.done) cursors.push({ next: () => iterator.next(), block: first.value, at: 0, weight });
  }
  const out = emptyBlock();
  while (cursors.length > 0) {
    let least = cursors[0];
    for (let i = 1; i < cursors.length; i++) if (compare(cursors[i], least) < 0) least = cursors[i];
    const { block, at } = least;
    const a = block.a[at];
    const b = block.b[at];
    const c = block.c[at];
    let n = 0;
    for (let i = cursors.length - 1; i >= 0; i--) {
      const cursor = cursors[i];
      const own = cursor.block;
      if (own.a[cursor.at] !== a || own.b[cursor.at] !== b || own.c[cursor.at] !== c) continue;
      n += own.n[cursor.at] * cursor.weight;
      if (++cursor.at < own.count) continue;
      const next = await cursor.next();
      if (next.done) cursors.splice(i, 1);
      else {
        cursor.block = next.value;
        cursor.at = 0;
      }
    }
    out.a[out.count] = a;
    out.b[out.count] = b;
    out.c[out.count] = c;
    out.n[out.count++] = n;
    if (out.count === BLOCK_ROWS) {
      yield out;
      out.count = 0;
    }
  }
  if (out.count > 0) yield out;
}

function compare(x: Cursor, y: Cursor): number {
  const { block: p, at: i } = x;
  const { block: q, at: j } = y;
  return p.a[i] - q.a[j] || p.b[i] - q.b[j] || p.c[i] - q.c[j];
}

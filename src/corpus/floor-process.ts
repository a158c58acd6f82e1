/** The process that reads corpora: prunes their rows, packs them into a floor, and writes that on standard output. */
import { tmpdir } from "node:os";
import path from "node:path";
import { AdedError, messageOf } from "../errors.ts";
import { type CorpusFile, readCorpusFile, requireOneVocabulary } from "./corpus-file.ts";
import { type Database, literal, openDatabase } from "./database.ts";
import { FloorBuilder } from "./floor-builder.ts";
import type { FloorAnswer, FloorRequest } from "./floor-messages.ts";
import { type GramBlock, type GramStream, mergeGrams, readGrams } from "./gram-stream.ts";
import { forEachPair } from "./pair-rows.ts";

/** For DuckDB: blocks of the files, and the bi-gram counts, which may spill. */
const MEMORY = 192 * 2 ** 20;

async function pack(request: FloorRequest): Promise<{ answer: FloorAnswer; floor: SharedArrayBuffer }> {
  const started = performance.now();
  const spill = path.join(tmpdir(), `aded-floor-${process.pid}`);
  const database = await openDatabase({ memory: MEMORY, spill });
  try {
    const corpora: (CorpusFile & { weight: number })[] = [];
    for (const { file, weight } of request.corpora) {
      const corpus = await readCorpusFile(database, file);
      corpora.push({ ...corpus, weight: weight / corpus.scale });
    }
    requireOneVocabulary(corpora);
    const [{ vocabHash, nVocab }] = corpora;
    const builder = new FloorBuilder(nVocab, request.topK, request.bound);
    const streams = corpora.map((corpus) => ({ grams: readGrams(database, corpus), weight: corpus.weight }));
    const grams = streams.length === 1 && streams[0].weight === 1 ? streams[0].grams : mergeGrams(streams);
    await forEachPair(grams, request.topK, (row) => builder.add(row.a, row.b, row));
    await forEachPair(readBigrams(database, corpora), request.topK, (row) => builder.add(nVocab, row.b, row));
    const floor = builder.finish();
    const answer = {
      vocabHash,
      nVocab,
      rows: builder.rows,
      dropped: builder.dropped,
      bytes: floor.byteLength,
      seconds: (performance.now() - started) / 1000,
    };
    return { answer, floor };
  } finally {
    await database.close();
  }
}

/** The 2-grams (b, c) of the corpora, as 3-grams with the same first token. */
async function* readBigrams(
  database: Database,
  corpora: readonly { file: string; weight: number }[],
): GramStream & AsyncGenerator<GramBlock> {
  const tables = corpora.map(
    ({ file, weight }) => `SELECT b, c, n * ${weight}::DOUBLE AS n FROM read_parquet(${literal(file)})`,
  );
  const sql = `SELECT b, c, SUM(n) AS n FROM (${tables.join(" UNION ALL ")}) GROUP BY b, c ORDER BY b, c`;
  const block: GramBlock = {
    count: 0,
    a: new Int32Array(2048),
    b: new Int32Array(2048),
    c: new Int32Array(2048),
    n: new Float64Array(2048),
  };
  for await (const chunk of database.chunks(sql, "can't count pairs")) {
    const [b, c, n] = [0, 1, 2].map((column) => chunk.getColumnVector(column));
    block.count = chunk.rowCount;
    for (let i = 0; i < block.count; i++) {
      block.b[i] = b.getItem(i) as number;
      block.c[i] = c.getItem(i) as number;
      block.n[i] = n.getItem(i) as number;
    }
    yield block;
  }
}

function write(bytes: Uint8Array | string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

try {
  const { answer, floor } = await pack(JSON.parse(process.argv[2]) as FloorRequest);
  await write(`${JSON.stringify({ answer })}\n`);
  await write(new Uint8Array(floor));
} catch (error) {
  const hint = error instanceof AdedError ? error.hint : undefined;
  await write(`${JSON.stringify({ error: { message: messageOf(error), hint } })}\n`);
}

/**
 * How long a corpus takes to be read as a matrix's floor: makes one of that many made-up rows, skewed as texts are, then reads it as the server does.
 *
 *     npx tsx scripts/corpus-large.ts [ROWS] [TOP_K] [BOUND_MIB]      (default 20000000 12 128)
 */
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { metadataSql } from "../src/corpus/corpus-file.ts";
import { literal, openDatabase } from "../src/corpus/database.ts";
import { loadFloor } from "../src/corpus/floor-source.ts";
import { gramHash } from "../src/corpus/gram-counter.ts";

const [rows = 20e6, topK = 12, mib = 128] = process.argv.slice(2).map(Number);
const VOCAB = 49152;

const folder = await mkdtemp(path.join(tmpdir(), "aded-large-"));
const database = await openDatabase({
  memory: 1024 * 2 ** 20,
  threads: 2,
  spill: path.join(folder, "spill"),
});
try {
  const bare = path.join(folder, "bare.parquet");
  const file = path.join(folder, "large.parquet");
  // three hashes that know nothing of each other
  const skewed = (power: number, most: number, draw: number): string =>
    `CAST(floor(power((hash(range * 3 + ${draw}) >> 11) / 9007199254740992.0, ${power}) * ${most}) AS INTEGER)`;
  // a few more draws than rows, as some are equal
  const draws = `SELECT ${skewed(2.5, VOCAB, 0)} AS a, ${skewed(2.5, VOCAB, 1)} AS b, ${skewed(3, VOCAB, 2)} AS c FROM range(${Math.round(rows * 1.6)})`;
  await database.run(
    `COPY (SELECT a, b, c, count(*) AS n FROM (${draws}) GROUP BY a, b, c ORDER BY a, b, c LIMIT ${rows})
     TO ${literal(bare)} (FORMAT parquet, COMPRESSION zstd)`,
    "draw",
  );
  let total = 0;
  let checksum = 0;
  let made = 0;
  let pairs = 0;
  let last = -1;
  for await (const chunk of database.chunks(`SELECT a, b, c, n::INTEGER FROM ${literal(bare)}`, "add up")) {
    const [a, b, c, n] = [0, 1, 2, 3].map((column) => chunk.getColumnVector(column));
    for (let i = 0; i < chunk.rowCount; i++) {
      const [ga, gb, gc, gn] = [a, b, c, n].map((column) => column.getItem(i) as number);
      total += gn;
      checksum = (checksum + Math.imul(gramHash(ga, gb, gc), gn)) | 0;
      const pair = ga * VOCAB + gb;
      if (pair !== last) pairs++;
      last = pair;
    }
    made += chunk.rowCount;
  }
  const source = { name: "made up", files: 1, bytes: 0, documents: 1, tokens: total + 2 };
  const meta = {
    vocabHash: "0000000000000000",
    nVocab: VOCAB,
    tokenizer: "none",
    model: "none",
    format: "text",
    template: false,
    scale: 1,
    total,
    checksum: checksum >>> 0,
    topK: 0,
    sources: [source],
  };
  await database.run(
    `COPY (FROM ${literal(bare)}) TO ${literal(file)} (FORMAT parquet, COMPRESSION zstd, KV_METADATA ${metadataSql(meta)})`,
    "write",
  );
  await database.close();
  console.log(`${made} rows, ${pairs} pairs`);
  const started = performance.now();
  const floor = await loadFloor({ corpora: [{ file, weight: 1 }], topK, bound: mib * 2 ** 20 });
  console.log(
    JSON.stringify({
      seconds: (performance.now() - started) / 1000,
      // of the processes that were started, which is the one that reads (Linux)
      cpu_seconds: childrenSeconds(),
      reading_seconds: floor.seconds,
      rows: floor.rows,
      dropped: floor.dropped,
      bytes: floor.bytes,
      bound: mib * 2 ** 20,
    }),
  );
} finally {
  await database.close();
  await rm(folder, { recursive: true, force: true });
}

function childrenSeconds(): number {
  const stat = readFileSync("/proc/self/stat", "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) / 100;
}

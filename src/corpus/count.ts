/** Adds up parts into a corpus file: the SQL of count.sql on DuckDB, in bounded memory. */
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { ProgressTask } from "../engine/progress.ts";
import { type CorpusMeta, commitFile, metadataSql } from "./corpus-file.ts";
import { literal, openDatabase } from "./database.ts";

export interface CountPartsOptions {
  /** SQL of a table with the columns a, b, c, n that holds the partial counts. */
  grams: string;
  /** The corpus to make. */
  out: string;
  /** A folder on the file system of `out` for the half-made file. */
  folder: string;
  /** Where DuckDB may spill to. */
  spill: string;
  meta: CorpusMeta;
  memory: number;
  threads: number;
  task?: ProgressTask;
  signal?: AbortSignal;
}

const POLL_MS = 500;

/** The one definition of counting, the same for DuckDB and Spark. */
export function countSql(): string {
  const file = fileURLToPath(new URL("./count.sql", import.meta.url));
  return readFileSync(file, "utf8")
    .replace(/^--.*\n/gm, "")
    .trim();
}

/** Parquet files as a table. */
export function partsTable(files: readonly string[]): string {
  return `read_parquet([${files.map(literal).join(", ")}])`;
}

/** @returns rows and bytes of the file @throws AdedError ADED_CORPUS; the signal's reason when aborted */
export async function countParts(options: CountPartsOptions): Promise<{ rows: number; bytes: number }> {
  const { out, meta, task, signal } = options;
  const database = await openDatabase({
    memory: options.memory,
    threads: options.threads,
    spill: options.spill,
    signal,
  });
  const draft = path.join(options.folder, "corpus.parquet");
  const timer = setInterval(() => {
    const { percentage } = database.connection.progress;
    task?.update(Math.max(0, Math.floor(percentage)), 100, "counting");
  }, POLL_MS);
  try {
    await database.run(
      `CREATE VIEW grams AS SELECT a, b, c, n FROM ${options.grams}`,
      `can't count for ${out}`,
    );
    await database.run(
      `COPY (${countSql()}) TO ${literal(draft)}
       (FORMAT parquet, COMPRESSION zstd, KV_METADATA ${metadataSql(meta)})`,
      `can't write ${out}`,
    );
    const [{ rows }] = await database.rows<{ rows: number }>(
      `SELECT num_rows AS rows FROM parquet_file_metadata(${literal(draft)})`,
      out,
    );
    signal?.throwIfAborted();
    await commitFile(draft, out);
    return { rows, bytes: (await stat(out)).size };
  } finally {
    clearInterval(timer);
    await database.close();
  }
}

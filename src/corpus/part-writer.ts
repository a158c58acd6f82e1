/**
 * Writes 3-gram counts that fit into memory as a Parquet file of (a, b, c, n): a part of a corpus, in no particular order.
 * It has its name only once it is whole.
 */
import { open, rename } from "node:fs/promises";
import { DuckDBDataChunk, INTEGER } from "@duckdb/node-api";
import { type Database, literal, openDatabase } from "./database.ts";
import type { GramCounter } from "./gram-counter.ts";

const CHUNK_ROWS = 2048;
const MEMORY = 160 * 2 ** 20;

export class PartWriter {
  readonly #database: Database;

  private constructor(database: Database) {
    this.#database = database;
  }

  static async create(): Promise<PartWriter> {
    return new PartWriter(await openDatabase({ memory: MEMORY }));
  }

  /** Empties the counter into `file`. Returns the rows written. @throws AdedError ADED_CORPUS, e.g. when the disk is full */
  async write(counter: GramCounter, file: string): Promise<number> {
    const rows = counter.size;
    const database = this.#database;
    const { connection } = database;
    await database.run("CREATE OR REPLACE TABLE grams (a INTEGER, b INTEGER, c INTEGER, n INTEGER)", file);
    const appender = await connection.createAppender("grams");
    const chunk = DuckDBDataChunk.create([INTEGER, INTEGER, INTEGER, INTEGER]);
    const columns = [0, 1, 2, 3].map(() => new Int32Array(CHUNK_ROWS));
    const [a, b, c, n] = columns;
    let filled = 0;
    const flush = (): void => {
      if (filled === 0) return;
      chunk.rowCount = filled;
      for (let column = 0; column < 4; column++) {
        const vector = chunk.getColumnVector(column);
        const values = columns[column];
        for (let i = 0; i < filled; i++) vector.setItem(i, values[i]);
        vector.flush();
      }
      appender.appendDataChunk(chunk);
      filled = 0;
    };
    counter.drain((ga, gb, gc, gn) => {
      a[filled] = ga;
      b[filled] = gb;
      c[filled] = gc;
      n[filled++] = gn;
      if (filled === CHUNK_ROWS) flush();
    });
    flush();
    appender.flushSync();
    appender.closeSync();
    const draft = `${file}.tmp`;
    await database.run(
      `COPY grams TO ${literal(draft)} (FORMAT parquet, COMPRESSION snappy); DROP TABLE grams`,
      `can't write ${file}`,
    );
    await syncFile(draft);
    await rename(draft, file);
    return rows;
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}

/** Makes sure that what was written is on the disk. */
export async function syncFile(file: string): Promise<void> {
  const handle = await open(file, "r+");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

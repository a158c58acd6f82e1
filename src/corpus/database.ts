/** DuckDB as corpora use it: in bounded memory, spilling to a folder of its own, errors in words that say what to do. */
import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { type DuckDBConnection, type DuckDBDataChunk, DuckDBInstance } from "@duckdb/node-api";
import { AdedError, messageOf } from "../errors.ts";

export interface DatabaseOptions {
  /** Bound on DuckDB's memory, bytes. */
  memory: number;
  /** @default 1 */
  threads?: number;
  /** Folder that it may spill to; made if need be, and removed at the end. Without it nothing is spilt. */
  spill?: string;
  /** Aborting ends the query that is running. */
  signal?: AbortSignal;
}

export interface Database {
  readonly connection: DuckDBConnection;
  /** Runs statements; an error is an AdedError ADED_CORPUS that begins with `what`. */
  run(sql: string, what: string): Promise<void>;
  /** The rows of a query as objects; bigint columns are numbers. */
  rows<T>(sql: string, what: string): Promise<T[]>;
  /** The texts of a query's only column, one by one. */
  texts(sql: string, what: string): AsyncGenerator<string>;
  /** The chunks of a query, one by one; each is good until the next is asked for. Several queries may be read at a time. */
  chunks(sql: string, what: string): AsyncGenerator<DuckDBDataChunk>;
  /** Calls after the first do nothing. */
  close(): Promise<void>;
}

const INTERRUPT_MS = 50;

/** A new, empty database in memory. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { spill, signal } = options;
  signal?.throwIfAborted();
  if (spill !== undefined) await mkdir(spill, { recursive: true });
  const instance = await DuckDBInstance.create(":memory:", {
    memory_limit: `${Math.ceil(options.memory / 2 ** 20)}MiB`,
    threads: String(options.threads ?? 1),
    temp_directory: spill ?? "",
    // everything that is needed is built in: nothing is ever downloaded
    autoinstall_known_extensions: "false",
  });
  const connection = await instance.connect();
  let again: NodeJS.Timeout | undefined;
  let closed = false;
  /** Those of the queries whose chunks are being read. */
  const reading = new Set<DuckDBConnection>();
  const interrupt = (): void => {
    for (const each of [connection, ...reading]) each.interrupt();
    // a query that was asked for but has not begun yet does not notice the first time
    again ??= setInterval(interrupt, INTERRUPT_MS);
  };
  signal?.addEventListener("abort", interrupt);
  const guarded = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    signal?.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      signal?.throwIfAborted();
      throw databaseError(error, what, options);
    }
  };
  async function* chunks(sql: string, what: string): AsyncGenerator<DuckDBDataChunk> {
    // any other query on the same connection would end the stream, as if there were no more rows
    const own = await guarded(what, () => instance.connect());
    reading.add(own);
    try {
      const result = await guarded(what, () => own.stream(sql));
      for (;;) {
        const chunk = await guarded(what, () => result.fetchChunk());
        if (chunk === null || chunk.rowCount === 0) return;
        yield chunk;
      }
    } finally {
      if (reading.delete(own)) own.closeSync();
    }
  }
  return {
    connection,
    chunks,
    async *texts(sql, what) {
      for await (const chunk of chunks(sql, what)) {
        const column = chunk.getColumnVector(0);
        for (let row = 0; row < chunk.rowCount; row++) yield String(column.getItem(row));
      }
    },
    run: (sql, what) => guarded(what, async () => void (await connection.run(sql))),
    rows: <T>(sql: string, what: string) =>
      guarded(what, async () => {
        const reader = await connection.runAndReadAll(sql);
        return reader.getRowObjectsJS().map(plainNumbers) as T[];
      }),
    async close() {
      if (closed) return;
      closed = true;
      signal?.removeEventListener("abort", interrupt);
      clearInterval(again);
      for (const each of [connection, ...reading]) each.closeSync();
      reading.clear();
      instance.closeSync();
      if (spill !== undefined) await rm(spill, { recursive: true, force: true });
    },
  };
}

function plainNumbers(row: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(row).map(([key, value]) => [
    key,
    typeof value === "bigint" ? Number(value) : value,
  ]);
  return Object.fromEntries(entries) as Record<string, unknown>;
}

/** Turns DuckDB's (or the file system's) words into ours. */
export function databaseError(
  error: unknown,
  what: string,
  options: { memory?: number; spill?: string } = {},
): AdedError {
  if (error instanceof AdedError) return error;
  const text = messageOf(error);
  const { spill, memory = 0 } = options;
  if (
    /no space left|file too large|quota exceeded|ENOSPC|EDQUOT|EFBIG|max_temp_directory_size|disk (is )?full/i.test(
      text,
    )
  ) {
    const where = spill === undefined ? "" : ` (it spills to ${path.dirname(spill)})`;
    return new AdedError("ADED_CORPUS", `${what}: the disk is full${where}`, {
      hint: "free some space, or name a folder on a larger disk with --temp",
      cause: error,
    });
  }
  if (/out of memory|failed to (allocate|pin)|could not allocate/i.test(text)) {
    return new AdedError("ADED_CORPUS", `${what}: ${Math.round(memory / 2 ** 20)} MiB are not enough`, {
      hint: "give more with --memory",
      cause: error,
    });
  }
  return new AdedError("ADED_CORPUS", `${what}: ${text.split("\n")[0]}`, { cause: error });
}

/** A text as an SQL literal. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

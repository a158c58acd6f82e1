/** Reads inputs and packs their records into batches for the counting workers. Everything that is wrong with a file is a fault with its place. */
import type { BuildFaults } from "./build-faults.ts";
import type { CountBatch } from "./build-messages.ts";
import { isWholeParquet, openBytes } from "./byte-source.ts";
import type { Database } from "./database.ts";
import type { FormatOptions } from "./formats.ts";
import { type Input, plainName } from "./inputs.ts";
import { parquetRecords } from "./parquet-records.ts";
import { jsonLayout, type RawRecord, split } from "./split.ts";

/** Bytes per batch: large enough to make messages cheap, small enough that all workers end at about the same time. */
const BATCH_BYTES = 256 * 1024;
/** A text with a zero byte this far at the front is no text. */
const BINARY_CHECK_BYTES = 8192;

export interface BatchOptions {
  format: FormatOptions;
  faults: BuildFaults;
  /** For Parquet files. */
  database(): Promise<Database>;
  /** Called with the bytes of the input that were taken from the disk. */
  onTaken(bytes: number): void;
  signal?: AbortSignal;
}

/** Batches of one input, the input being number `index`. @throws AdedError for a file that can't be read or is damaged */
export async function* readBatches(
  input: Input,
  index: number,
  options: BatchOptions,
): AsyncGenerator<CountBatch> {
  const { faults, signal, onTaken } = options;
  const source = await openBytes(input, signal);
  if (source.kind === "parquet" && input.path !== undefined) {
    if (!(await isWholeParquet(input.path))) {
      faults.add(input, 0, "it is a Parquet file without an end (cut off?)");
      return;
    }
    yield* pack(parquetRecords(await options.database(), input.path, options.format.field), index, true);
    onTaken(input.bytes);
    return;
  }
  const { head, chunks } = await peek(source.chunks);
  const json = isJson(input, options.format, head);
  if (!json && head.subarray(0, BINARY_CHECK_BYTES).includes(0)) {
    faults.add(input, 0, "it is no text (it holds zero bytes)");
    return;
  }
  const records = split(chunks, json ? jsonLayout(head) : "text", ({ line, message }) =>
    faults.add(input, line, message),
  );
  for await (const batch of pack(records, index, json)) {
    onTaken(source.taken());
    yield batch;
  }
  onTaken(source.taken());
}

/** Texts may come as plain text or as records; the other formats are always records. */
function isJson(input: Input, { format, field }: FormatOptions, head: Buffer): boolean {
  if (format !== "text" || field !== undefined) return true;
  if (input.path !== undefined) return /\.(json|jsonl|ndjson)$/.test(plainName(input.name));
  return /^\s*[[{]\s*["{[]/.test(head.subarray(0, 256).toString("latin1"));
}

async function peek(chunks: AsyncIterable<Buffer>): Promise<{ head: Buffer; chunks: AsyncIterable<Buffer> }> {
  const iterator = chunks[Symbol.asyncIterator]();
  const first = await iterator.next();
  const head = first.done ? Buffer.alloc(0) : first.value;
  async function* all(): AsyncGenerator<Buffer> {
    if (head.length > 0) yield head;
    yield* { [Symbol.asyncIterator]: () => iterator };
  }
  return { head, chunks: all() };
}

async function* pack(
  records: AsyncIterable<RawRecord>,
  input: number,
  json: boolean,
): AsyncGenerator<CountBatch> {
  let parts: Buffer[] = [];
  let ends: number[] = [];
  let lines: number[] = [];
  let bytes = 0;
  const batch = (): CountBatch => {
    // a buffer of its own, so that it can be moved to the worker
    const packed = new Uint8Array(bytes);
    let at = 0;
    for (const part of parts) {
      packed.set(part, at);
      at += part.length;
    }
    return {
      type: "batch",
      input,
      json,
      bytes: packed,
      ends: Int32Array.from(ends),
      lines: Int32Array.from(lines),
    };
  };
  for await (const record of records) {
    parts.push(record.bytes);
    bytes += record.bytes.length;
    ends.push(bytes);
    lines.push(record.line);
    if (bytes < BATCH_BYTES) continue;
    yield batch();
    parts = [];
    ends = [];
    lines = [];
    bytes = 0;
  }
  if (parts.length > 0) yield batch();
}

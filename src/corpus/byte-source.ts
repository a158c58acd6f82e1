/**
 * The bytes of an input, unpacked. What it is (gzip, Zstandard, Parquet, or plain) is told by its first bytes, not by its name.
 */
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { PassThrough, pipeline, type Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { Decompress } from "fzstd";
import { AdedError, messageOf } from "../errors.ts";
import type { Input } from "./inputs.ts";

export type ByteKind = "plain" | "gzip" | "zstd" | "parquet";

export interface ByteSource {
  kind: ByteKind;
  /** What was unpacked, in pieces. Empty for Parquet, which is not read as a stream. */
  chunks: AsyncIterable<Buffer>;
  /** Bytes taken from the disk so far. */
  taken(): number;
}

const READ_BYTES = 256 * 1024;
/** First bytes of bzip2, xz and zip, as hex. */
const OTHER_PACKERS = ["425a68", "fd377a585a", "504b0304"];

/** @throws AdedError ADED_CORPUS when the file can't be opened; the chunks throw it when it is damaged */
export async function openBytes(input: Input, signal?: AbortSignal): Promise<ByteSource> {
  let taken = 0;
  const raw: Readable =
    input.path === undefined ? process.stdin : createReadStream(input.path, { highWaterMark: READ_BYTES });
  // a read from a terminal or a pipe may never end by itself
  const stop = (): void => void raw.destroy(signal?.reason as Error);
  signal?.addEventListener("abort", stop, { once: true });
  raw.once("close", () => signal?.removeEventListener("abort", stop));
  // whoever reads gets the error, too; nobody may be reading just now
  raw.on("error", () => {});
  const chunks = countedChunks(raw, input, signal, (bytes) => {
    taken += bytes;
  });
  const first = await chunks.next();
  const head = first.done ? Buffer.alloc(0) : first.value;
  const kind = kindOf(head);
  const rest = prepend(head, chunks);
  if (kind === "parquet") {
    raw.destroy();
    if (input.path === undefined) {
      throw new AdedError("ADED_CORPUS", "Parquet can't be read from standard input", {
        hint: "name the file instead",
      });
    }
    return { kind, chunks: none(), taken: () => taken };
  }
  const unpacked =
    kind === "gzip"
      ? gunzip(rest, input, signal)
      : kind === "zstd"
        ? unzstd(rest, input)
        : plain(rest, input);
  return { kind, chunks: unpacked, taken: () => taken };
}

/** True for a file that begins and ends as Parquet files do. */
export async function isWholeParquet(file: string): Promise<boolean> {
  const handle = await open(file, "r");
  try {
    const { size } = await handle.stat();
    if (size < 12) return false;
    const mark = Buffer.alloc(8);
    await handle.read(mark, 0, 4, 0);
    await handle.read(mark, 4, 4, size - 4);
    return mark.toString("latin1") === "PAR1PAR1";
  } finally {
    await handle.close();
  }
}

function kindOf(head: Buffer): ByteKind {
  if (head.length >= 2 && head[0] === 0x1f && head[1] === 0x8b) return "gzip";
  if (head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528) return "zstd";
  return head.subarray(0, 4).toString("latin1") === "PAR1" ? "parquet" : "plain";
}

async function* countedChunks(
  raw: Readable,
  input: Input,
  signal: AbortSignal | undefined,
  count: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of raw) {
      count((chunk as Buffer).length);
      yield chunk as Buffer;
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw new AdedError("ADED_CORPUS", `can't read ${input.name}: ${messageOf(error)}`, {
      hint: "check that the file may be read",
      cause: error,
    });
  }
}

async function* prepend(head: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  yield* rest;
}

async function* none(): AsyncGenerator<Buffer> {}

async function* plain(chunks: AsyncIterable<Buffer>, input: Input): AsyncGenerator<Buffer> {
  let first = true;
  for await (const chunk of chunks) {
    if (first && OTHER_PACKERS.some((mark) => chunk.subarray(0, mark.length / 2).toString("hex") === mark)) {
      throw new AdedError("ADED_CORPUS", `${input.name} is packed in a way that is not known here`, {
        hint: "unpack it, or pack it with gzip or zstd",
      });
    }
    first = false;
    yield chunk;
  }
}

async function* gunzip(
  chunks: AsyncIterable<Buffer>,
  input: Input,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  const unpacked = new PassThrough({ highWaterMark: READ_BYTES });
  pipeline(chunks, createGunzip({ chunkSize: READ_BYTES }), unpacked, () => {});
  try {
    for await (const chunk of unpacked) yield chunk as Buffer;
  } catch (error) {
    signal?.throwIfAborted();
    throw damaged(error, input, "gzip");
  }
}

async function* unzstd(chunks: AsyncIterable<Buffer>, input: Input): AsyncGenerator<Buffer> {
  let ready: Buffer[] = [];
  let ended = false;
  const decompress = new Decompress((chunk, last) => {
    if (chunk.length > 0) ready.push(Buffer.from(chunk));
    ended = last ?? false;
  });
  const feed = (chunk: Uint8Array, last: boolean): Buffer[] => {
    try {
      decompress.push(chunk, last);
    } catch (error) {
      throw damaged(error, input, "zstd");
    }
    const out = ready;
    ready = [];
    return out;
  };
  for await (const chunk of chunks) yield* feed(chunk, false);
  yield* feed(new Uint8Array(0), true);
  if (!ended) throw damaged(new Error("it ends too early"), input, "zstd");
}

function damaged(error: unknown, input: Input, how: string): unknown {
  if (error instanceof AdedError) return error;
  return new AdedError("ADED_CORPUS", `${input.name} is a damaged ${how} file: ${messageOf(error)}`, {
    hint: "fetch or make the file anew",
    cause: error,
  });
}

/**
 * The file of a snapshot: records, each with a checksum, behind a magic word and a version. It is written beside its place, fsynced and
 * renamed, so that at every moment the place holds one complete snapshot or none. Numbers are little-endian.
 *
 *     "ADEDSNAP" uint32 version, then records: uint32 length of head, uint32 length of body, uint32 CRC-32 of both, head (JSON), body
 *
 * The last record's kind is "end".
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, renameSync } from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import path from "node:path";
import { crc32 } from "node:zlib";

const MAGIC = "ADEDSNAP";
export const SNAPSHOT_VERSION = 2;
const OPENING_BYTES = 12;
const RECORD_BYTES = 12;
/** No record is longer: a length past it is damage. */
const MOST_HEAD = 65_536;
const MOST_BODY = 2 ** 24;

export interface SnapshotRecord {
  /** Becomes JSON; `kind` tells what the body is. */
  head: { kind: string } & Record<string, string | number | boolean>;
  /** Copied before the next record is asked for. */
  body?: ArrayBufferView;
}

/** What is wrong with a file, in words. */
export class SnapshotDamage extends Error {}

/**
 * Writes a snapshot in slices: between two records other work goes on.
 *
 * @param records asked for one by one; each is made when it is written. Without a last record of kind "end" nothing is kept
 * @returns bytes written; undefined when the records broke off
 * @throws Error of the file system; what stood in the file before is still there
 */
export async function writeSnapshot(
  file: string,
  records: Iterable<SnapshotRecord>,
): Promise<number | undefined> {
  await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
  const temporary = `${file}.${process.pid}.tmp`;
  const handle = await open(temporary, "w", 0o600);
  let bytes = 0;
  let ended = false;
  try {
    const write = async (buffer: Buffer): Promise<void> => {
      bytes += buffer.length;
      await handle.writeFile(buffer);
    };
    await write(opening());
    for (const record of records) {
      ended = record.head.kind === "end";
      await write(encode(record));
    }
    if (ended) await handle.sync();
  } catch (error) {
    ended = false;
    throw error;
  } finally {
    await handle.close();
    if (!ended) await rm(temporary, { force: true });
  }
  if (!ended) return undefined;
  await rename(temporary, file);
  syncFolder(path.dirname(file));
  return bytes;
}

/**
 * Reads a snapshot record by record.
 *
 * @param take gets each record but the last; the body is overwritten by the next
 * @returns bytes read; undefined if there is no file
 * @throws SnapshotDamage for a file that is not a whole snapshot of this version; Error of the file system
 */
export function readSnapshot(
  file: string,
  take: (head: SnapshotRecord["head"], body: ArrayBuffer, bytes: number) => void,
): number | undefined {
  let fd: number;
  try {
    fd = openSync(file, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const { size } = fstatSync(fd);
    readOpening(fd, size);
    let at = OPENING_BYTES;
    const start = Buffer.alloc(RECORD_BYTES);
    let scratch = new ArrayBuffer(2 ** 18);
    for (;;) {
      if (at + RECORD_BYTES > size) throw new SnapshotDamage(`it breaks off at byte ${at}`);
      readSync(fd, start, 0, RECORD_BYTES, at);
      at += RECORD_BYTES;
      const headBytes = start.readUInt32LE(0);
      const bodyBytes = start.readUInt32LE(4);
      if (headBytes > MOST_HEAD || bodyBytes > MOST_BODY || at + headBytes + bodyBytes > size) {
        throw new SnapshotDamage(`a record at byte ${at} is longer than the file`);
      }
      const head = Buffer.alloc(headBytes);
      readSync(fd, head, 0, headBytes, at);
      if (bodyBytes > scratch.byteLength) scratch = new ArrayBuffer(bodyBytes);
      const body = new Uint8Array(scratch, 0, bodyBytes);
      readSync(fd, body, 0, bodyBytes, at + headBytes);
      at += headBytes + bodyBytes;
      if (crc32(body, crc32(head)) !== start.readUInt32LE(8)) {
        throw new SnapshotDamage(`the checksum before byte ${at} is wrong`);
      }
      const parsed = JSON.parse(head.toString()) as SnapshotRecord["head"];
      if (parsed.kind === "end") {
        if (at !== size) throw new SnapshotDamage(`${size - at} bytes follow its end`);
        return size;
      }
      take(parsed, scratch, bodyBytes);
    }
  } finally {
    closeSync(fd);
  }
}

/** Moves a file out of the way; returns where to. */
export function setAside(file: string): string {
  const aside = `${file}.damaged`;
  renameSync(file, aside);
  return aside;
}

function opening(): Buffer {
  const buffer = Buffer.alloc(OPENING_BYTES);
  buffer.write(MAGIC);
  buffer.writeUInt32LE(SNAPSHOT_VERSION, 8);
  return buffer;
}

function readOpening(fd: number, size: number): void {
  const buffer = Buffer.alloc(OPENING_BYTES);
  if (size < OPENING_BYTES) throw new SnapshotDamage("it is too short");
  readSync(fd, buffer, 0, OPENING_BYTES, 0);
  if (buffer.toString("latin1", 0, 8) !== MAGIC) throw new SnapshotDamage("it is no snapshot");
  const version = buffer.readUInt32LE(8);
  if (version !== SNAPSHOT_VERSION) {
    throw new SnapshotDamage(`its version is ${version}, this program reads ${SNAPSHOT_VERSION}`);
  }
}

function encode({ head, body }: SnapshotRecord): Buffer {
  const text = Buffer.from(JSON.stringify(head));
  const bodyBytes = body?.byteLength ?? 0;
  const buffer = Buffer.allocUnsafe(RECORD_BYTES + text.length + bodyBytes);
  buffer.writeUInt32LE(text.length, 0);
  buffer.writeUInt32LE(bodyBytes, 4);
  text.copy(buffer, RECORD_BYTES);
  if (body !== undefined) {
    buffer.set(new Uint8Array(body.buffer, body.byteOffset, bodyBytes), RECORD_BYTES + text.length);
  }
  buffer.writeUInt32LE(crc32(buffer.subarray(RECORD_BYTES)), 8);
  return buffer;
}

/** Makes the rename itself durable. Some file systems can't; then the rename is as durable as they make it. */
function syncFolder(folder: string): void {
  try {
    const fd = openSync(folder, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch {
    // not every platform opens folders
  }
}

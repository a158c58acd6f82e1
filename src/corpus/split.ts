/**
 * Cuts a stream of bytes into records without reading any of them: the lines of JSONL, the elements of one JSON array, the
 * pieces of a plain text. Memory is bounded by the largest record.
 */

export type Layout = "lines" | "array" | "text";

export interface RawRecord {
  /** Line (from 1) on which it begins. */
  line: number;
  bytes: Buffer;
}

/** A record that could not be cut out. */
export interface SplitFault {
  line: number;
  message: string;
}

/** Records larger than this are faults: no data set has them, but broken files do. */
export const MOST_RECORD_BYTES = 64 * 2 ** 20;
/** Plain texts are cut after a line end when they are longer than this; each piece counts as a text of its own. */
export const TEXT_PIECE_BYTES = 2 ** 20;

const NEWLINE = 0x0a;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_SQUARE = 0x5b;
const CLOSE_SQUARE = 0x5d;
const OPEN_CURLY = 0x7b;
const CLOSE_CURLY = 0x7d;

const isSpace = (byte: number): boolean => byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);

/** How a stream of JSON records is laid out, by its first byte that is no white space. */
export function jsonLayout(head: Buffer): "lines" | "array" {
  let at = head.length >= 3 && head.readUIntBE(0, 3) === 0xefbbbf ? 3 : 0;
  while (at < head.length && isSpace(head[at])) at++;
  return head[at] === OPEN_SQUARE ? "array" : "lines";
}

/**
 * @param onFault called for what could not be cut out; the rest goes on
 * @param mostBytes larger records are faults
 */
export function split(
  chunks: AsyncIterable<Buffer>,
  layout: Layout,
  onFault: (fault: SplitFault) => void,
  mostBytes = MOST_RECORD_BYTES,
): AsyncGenerator<RawRecord> {
  const pending = new Pending(mostBytes);
  if (layout === "array") return splitArray(chunks, pending, onFault);
  return layout === "text" ? splitText(chunks) : splitLines(chunks, pending, onFault);
}

async function* splitLines(
  chunks: AsyncIterable<Buffer>,
  pending: Pending,
  onFault: (fault: SplitFault) => void,
): AsyncGenerator<RawRecord> {
  let line = 1;
  for await (const chunk of chunks) {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, from)) {
      pending.add(chunk.subarray(from, at));
      const record = pending.take();
      if (record === undefined) onFault(pending.tooLarge(line));
      else if (!isBlank(record)) yield { line, bytes: record };
      line++;
      from = at + 1;
    }
    pending.add(chunk.subarray(from));
  }
  const last = pending.take();
  if (last === undefined) onFault(pending.tooLarge(line));
  else if (!isBlank(last)) yield { line, bytes: last };
}

async function* splitArray(
  chunks: AsyncIterable<Buffer>,
  pending: Pending,
  onFault: (fault: SplitFault) => void,
): AsyncGenerator<RawRecord> {
  let line = 1;
  let recordLine = 1;
  let depth = 0;
  let inString = false;
  let escaped = false;
  let begun = false;
  let closed = false;
  for await (const chunk of chunks) {
    let from = begun ? 0 : -1;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at];
      if (byte === NEWLINE) line++;
      if (closed) continue;
      if (inString) {
        if (escaped) escaped = false;
        else if (byte === BACKSLASH) escaped = true;
        else if (byte === QUOTE) inString = false;
        continue;
      }
      if (begun && depth === 1 && (byte === COMMA || byte === CLOSE_SQUARE)) {
        if (from >= 0) pending.add(chunk.subarray(from, at));
        const record = pending.take();
        if (record === undefined) onFault(pending.tooLarge(recordLine));
        else if (!isBlank(record)) yield { line: recordLine, bytes: record };
        from = at + 1;
        recordLine = line;
        closed = byte === CLOSE_SQUARE;
        continue;
      }
      if (byte === QUOTE) inString = true;
      else if (byte === OPEN_SQUARE || byte === OPEN_CURLY) {
        if (++depth === 1 && !begun) {
          begun = true;
          from = at + 1;
        } else if (depth === 2) recordLine = line;
      } else if (byte === CLOSE_SQUARE || byte === CLOSE_CURLY) depth--;
    }
    if (begun && !closed && from >= 0) pending.add(chunk.subarray(from));
  }
  if (!closed) {
    onFault({ line: recordLine, message: "the array does not end; what follows this line is lost" });
  }
}

async function* splitText(chunks: AsyncIterable<Buffer>): AsyncGenerator<RawRecord> {
  let rest: Buffer = Buffer.alloc(0);
  let line = 1;
  for await (const chunk of chunks) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 2 * TEXT_PIECE_BYTES) {
      const end = textCut(rest, TEXT_PIECE_BYTES);
      const bytes = rest.subarray(0, end);
      yield { line, bytes };
      line += countLines(bytes);
      rest = rest.subarray(end);
    }
  }
  if (rest.length > 0) yield { line, bytes: rest };
}

/** Where to cut a text of UTF-8: after the last line end before `most`, or else between two characters. */
function textCut(text: Buffer, most: number): number {
  const newline = text.lastIndexOf(NEWLINE, most - 1);
  if (newline >= 0) return newline + 1;
  let end = most;
  while (end > 1 && (text[end] & 0xc0) === 0x80) end--;
  return end;
}

function countLines(bytes: Buffer): number {
  let lines = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) lines++;
  return lines;
}

function isBlank(bytes: Buffer): boolean {
  for (const byte of bytes) if (!isSpace(byte)) return false;
  return true;
}

/** What was read of the record so far. */
class Pending {
  readonly #most: number;
  #parts: Buffer[] = [];
  #bytes = 0;

  /** @param most bytes of the largest record */
  constructor(most: number) {
    this.#most = most;
  }

  add(part: Buffer): void {
    if (part.length === 0) return;
    this.#bytes += part.length;
    // of a record that is too large nothing is kept
    if (this.#bytes > this.#most) this.#parts = [];
    else this.#parts.push(part);
  }

  /** The record, and a new one begins; undefined if it was too large. */
  take(): Buffer | undefined {
    const whole = this.#bytes <= this.#most;
    const record = this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts);
    this.#parts = [];
    this.#bytes = 0;
    return whole ? record : undefined;
  }

  tooLarge(line: number): SplitFault {
    return { line, message: `the record is larger than ${Math.round(this.#most / 2 ** 20)} MiB` };
  }
}

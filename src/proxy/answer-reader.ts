/**
 * Reads HTTP/1.1 answers of an engine, one after the other, from the text of a connection: Latin-1, one character per byte, so that
 * nothing is lost and small pieces cost no buffer. Strict (RFC 9112): what could be understood in two ways is an error.
 */

export interface AnswerEvents {
  /** An interim answer, 102 or 103 for instance. */
  information(status: number, rawHeaders: string[]): void;
  start(status: number, message: string, rawHeaders: string[]): void;
  /** A piece of the body, without framing. */
  piece(text: string): void;
  /** The answer is complete. `reusable`: the connection can carry another request. */
  end(rawTrailers: string[], reusable: boolean): void;
}

/** Largest header block taken from an engine, bytes; for trailers, too. */
const MAX_HEADERS = 64 * 1024;
/** Longest line of a chunk's size with its extensions, bytes. */
const MAX_SIZE_LINE = 4096;

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?$/;
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const UNFIT_VALUE = /[^\t\x20-\x7e\x80-\xff]/;
const SIZE = /^([0-9a-f]{1,13})[ \t]*(?:;.*)?$/i;
const FIRST = "HTTP/1.";

type State = "head" | "fixed" | "until-close" | "size" | "chunk" | "trailers" | "done";

export class AnswerReader {
  readonly #events: AnswerEvents;
  #state: State = "head";
  /** Text that is not yet a whole line or header block. */
  #rest = "";
  /** Bytes of the body, or of the chunk and its line end, that are still to come. */
  #missing = 0;
  #keepAlive = false;
  #streamed = false;
  #idleLimit: number | undefined;

  constructor(events: AnswerEvents) {
    this.#events = events;
  }

  /** The answer came in chunks, or as far as the connection went. */
  get streamed(): boolean {
    return this.#streamed;
  }

  /** How long the engine keeps the connection open without a request, ms, where it says so. */
  get idleLimit(): number | undefined {
    return this.#idleLimit;
  }

  /** Takes what came next. @throws Error when it is no answer */
  read(text: string): void {
    let all = text;
    if (this.#rest !== "") {
      all = this.#rest + text;
      this.#rest = "";
    }
    let at = 0;
    while (at >= 0 && at < all.length) at = this.#step(all, at);
  }

  /** The connection ended. @throws Error when the answer is not complete by that */
  finish(): void {
    if (this.#state === "done") return;
    if (this.#state !== "until-close") throw new Error("the connection was closed");
    this.#state = "done";
    this.#events.end([], false);
  }

  /** Takes one part that begins at `at`. @returns where the next one begins; -1: more has to come first */
  #step(all: string, at: number): number {
    switch (this.#state) {
      case "head":
        return this.#head(all, at);
      case "fixed": {
        const end = Math.min(all.length, at + this.#missing);
        this.#missing -= end - at;
        this.#events.piece(all.slice(at, end));
        if (this.#missing === 0) this.#complete([], end === all.length);
        return end;
      }
      case "until-close":
        this.#events.piece(all.slice(at));
        return -1;
      case "size":
        return this.#size(all, at);
      case "chunk":
        return this.#chunk(all, at);
      case "trailers":
        return this.#trailers(all, at);
      case "done":
        throw new Error("there is more than an answer");
    }
  }

  #head(all: string, at: number): number {
    const end = all.indexOf("\r\n\r\n", at);
    if (end < 0) {
      const begun = all.startsWith(FIRST, at) || FIRST.startsWith(all.slice(at, at + FIRST.length));
      if (!begun) throw new Error("the answer is no HTTP");
      return this.#keep(all, at, MAX_HEADERS);
    }
    if (end - at > MAX_HEADERS) throw new Error("the answer's headers are too large");
    const lineEnd = all.indexOf("\r\n", at);
    const line = STATUS_LINE.exec(all.slice(at, lineEnd));
    if (line === null) throw new Error("the answer is no HTTP");
    const status = Number(line[2]);
    const headers = lineEnd === end ? [] : fieldsOf(all.slice(lineEnd + 2, end));
    if (status === 101) throw new Error("the engine changed the protocol");
    if (status < 200) {
      this.#events.information(status, headers);
      return end + 4;
    }
    const length = this.#frame(headers, line[1] === "1");
    if (status === 204 || status === 304) this.#missing = 0;
    else if (length === "chunked") this.#state = "size";
    else if (length === undefined) this.#state = "until-close";
    else {
      this.#state = "fixed";
      this.#missing = length;
    }
    this.#events.start(status, line[3] ?? "", headers);
    const empty = this.#state === "head" || (this.#state === "fixed" && this.#missing === 0);
    if (empty) this.#complete([], end + 4 === all.length);
    return end + 4;
  }

  /** How the body is framed: so many bytes, in chunks, or (undefined) up to the connection's end. */
  #frame(headers: readonly string[], current: boolean): number | "chunked" | undefined {
    this.#keepAlive = current;
    let length: number | undefined;
    let coding: string | undefined;
    for (let i = 0; i < headers.length; i += 2) {
      const size = headers[i].length;
      if (size !== 10 && size !== 14 && size !== 17) continue;
      const name = headers[i].toLowerCase();
      const value = headers[i + 1];
      if (name === "content-length") {
        if (length !== undefined || !/^\d{1,15}$/.test(value))
          throw new Error("the answer's length is unclear");
        length = Number(value);
      } else if (name === "transfer-encoding") {
        coding = coding === undefined ? value : `${coding}, ${value}`;
      } else if (name === "connection") {
        if (/(?:^|[ \t,])close(?:$|[ \t,])/i.test(value)) this.#keepAlive = false;
      } else if (name === "keep-alive") {
        const seconds = /(?:^|[ \t,])timeout=(\d{1,6})/i.exec(value)?.[1];
        if (seconds !== undefined) this.#idleLimit = Number(seconds) * 1000;
      }
    }
    this.#streamed = length === undefined;
    if (coding === undefined) return length;
    if (length !== undefined) throw new Error("the answer has two kinds of length");
    return /(?:^|[ \t,])chunked[ \t]*$/i.test(coding) ? "chunked" : undefined;
  }

  #size(all: string, at: number): number {
    const end = all.indexOf("\r\n", at);
    if (end < 0) {
      // no digit, no chunk: known before the line is complete
      if (!/^[0-9a-f]/i.test(all[at])) throw new Error("a chunk has no size");
      return this.#keep(all, at, MAX_SIZE_LINE);
    }
    const digits = SIZE.exec(all.slice(at, end))?.[1];
    if (digits === undefined) throw new Error("a chunk has no size");
    const size = Number.parseInt(digits, 16);
    this.#state = size === 0 ? "trailers" : "chunk";
    this.#missing = size + 2;
    return end + 2;
  }

  /** `#missing` counts the two bytes of the chunk's line end, too. */
  #chunk(all: string, at: number): number {
    const end = Math.min(all.length, at + this.#missing);
    const data = Math.min(end, at + this.#missing - 2);
    if (data > at) this.#events.piece(all.slice(at, data));
    this.#missing -= end - at;
    for (let i = Math.max(at, data); i < end; i++) {
      const wanted = end - i + this.#missing === 2 ? 13 : 10;
      if (all.charCodeAt(i) !== wanted) throw new Error("a chunk is longer than its size");
    }
    if (this.#missing === 0) this.#state = "size";
    return end;
  }

  #trailers(all: string, at: number): number {
    if (all.startsWith("\r\n", at)) {
      this.#complete([], at + 2 === all.length);
      return at + 2;
    }
    const end = all.indexOf("\r\n\r\n", at);
    if (end < 0) return this.#keep(all, at, MAX_HEADERS);
    this.#complete(fieldsOf(all.slice(at, end)), end + 4 === all.length);
    return end + 4;
  }

  #complete(rawTrailers: string[], last: boolean): void {
    // ready for the next answer before anybody can ask for it
    this.#state = last && this.#keepAlive ? "head" : "done";
    this.#events.end(rawTrailers, this.#state === "head");
  }

  #keep(all: string, at: number, most: number): number {
    if (all.length - at > most) throw new Error("the answer's headers are too large");
    this.#rest = all.slice(at);
    return -1;
  }
}

/** Name, value, name, value … of a header block without its last line end. */
function fieldsOf(block: string): string[] {
  const fields: string[] = [];
  for (const line of block.split("\r\n")) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    const value = trimmed(line, colon + 1);
    if (colon < 1 || !NAME.test(name) || UNFIT_VALUE.test(value)) {
      throw new Error("the answer has a malformed header");
    }
    fields.push(name, value);
  }
  return fields;
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

function trimmed(line: string, from: number): string {
  let start = from;
  let end = line.length;
  while (start < end && isBlank(line.charCodeAt(start))) start++;
  while (end > start && isBlank(line.charCodeAt(end - 1))) end--;
  return line.slice(start, end);
}

/** The engine's own output: kept in a file that is rotated by size, with the last lines at hand for error messages. */
import { closeSync, fstatSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import path from "node:path";

export interface EngineLogOptions {
  /** Size at which the file is set aside, bytes. @default 8 MiB */
  maxBytes?: number;
  /** Files set aside that are kept: FILE.1 (newest) … FILE.n. @default 3 */
  keep?: number;
  /** Lines that `tail` gives. @default 25 */
  tailLines?: number;
}

export class EngineLog {
  readonly file: string;
  readonly #maxBytes: number;
  readonly #keep: number;
  readonly #tailLines: number;
  #fd: number;
  #bytes: number;
  #lines: string[] = [];
  #rest = "";

  constructor(file: string, options: EngineLogOptions = {}) {
    this.file = file;
    this.#maxBytes = options.maxBytes ?? 8 * 2 ** 20;
    this.#keep = options.keep ?? 3;
    this.#tailLines = options.tailLines ?? 25;
    mkdirSync(path.dirname(file), { recursive: true });
    this.#fd = openSync(file, "a", 0o600);
    this.#bytes = fstatSync(this.#fd).size;
  }

  write(chunk: Buffer): void {
    if (this.#fd < 0) return;
    try {
      if (this.#bytes + chunk.length > this.#maxBytes && this.#bytes > 0) this.#rotate();
      writeSync(this.#fd, chunk);
      this.#bytes += chunk.length;
    } catch {
      // a full disk costs the log, not the requests
    }
    const parts = (this.#rest + chunk.toString("utf8")).split("\n");
    this.#rest = (parts.pop() ?? "").slice(-4096);
    this.#lines.push(...parts);
    if (this.#lines.length > this.#tailLines) this.#lines = this.#lines.slice(-this.#tailLines);
  }

  /** The last lines, also one that has no end yet. */
  tail(): string {
    return [...this.#lines, this.#rest].join("\n").trimEnd();
  }

  /** Forgets the last lines, so that `tail` tells only of the next start. */
  clearTail(): void {
    this.#lines = [];
    this.#rest = "";
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #rotate(): void {
    rmSync(`${this.file}.${this.#keep}`, { force: true });
    for (let n = this.#keep - 1; n >= 0; n--) {
      const from = n === 0 ? this.file : `${this.file}.${n}`;
      try {
        renameSync(from, `${this.file}.${n + 1}`);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      }
    }
    // opened before the old one is closed: where that fails, there is still a file
    const fd = openSync(this.file, "a", 0o600);
    closeSync(this.#fd);
    this.#fd = fd;
    this.#bytes = 0;
  }
}

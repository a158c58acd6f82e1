/** The last lines that an engine printed, and who reads along. */

export class LogRing {
  readonly #most: number;
  #lines: string[] = [];
  #rest = "";
  readonly #readers = new Set<(line: string) => void>();

  /** @param most lines that are kept; each is cut at 4 KiB */
  constructor(most = 2000) {
    this.#most = most;
  }

  write(chunk: Buffer): void {
    const parts = (this.#rest + chunk.toString("utf8")).split("\n");
    this.#rest = (parts.pop() ?? "").slice(0, 4096);
    for (const part of parts) {
      const line = part.slice(0, 4096);
      this.#lines.push(line);
      for (const reader of this.#readers) reader(line);
    }
    // in one go now and then, so that a line costs no copy of all others
    if (this.#lines.length > this.#most * 2) this.#lines = this.#lines.slice(-this.#most);
  }

  /** The last `count` lines. */
  tail(count = this.#most): string[] {
    return this.#lines.slice(-Math.min(count, this.#most));
  }

  /** Calls `reader` for each further line. @returns ends that */
  follow(reader: (line: string) => void): () => void {
    this.#readers.add(reader);
    return () => this.#readers.delete(reader);
  }
}

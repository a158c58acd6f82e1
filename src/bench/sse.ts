/** Cuts a stream of server-sent events into the `data` of each event (WHATWG HTML, section 9.2; other fields are skipped). */
export class SseReader {
  readonly #decoder = new TextDecoder();
  #rest = "";

  /** @returns the data of every event that this chunk completes */
  push(chunk: Uint8Array): string[] {
    this.#rest += this.#decoder.decode(chunk, { stream: true });
    const events: string[] = [];
    for (;;) {
      const end = /\r?\n\r?\n/.exec(this.#rest);
      if (end === null) return events;
      const data = this.#rest
        .slice(0, end.index)
        .split(/\r?\n/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(line.startsWith("data: ") ? 6 : 5));
      this.#rest = this.#rest.slice(end.index + end[0].length);
      if (data.length > 0) events.push(data.join("\n"));
    }
  }
}

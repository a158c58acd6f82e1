/**
 * Cuts a byte stream into the bodies of length-prefixed frames. A body that lies whole in a chunk is handed on where it lies; one that
 * spans chunks is put together in one buffer of its exact length.
 */
import { LinkFrameError } from "./frames.ts";

/** Bytes `start` to `end` of `bytes` are a body. They may be overwritten once the call has returned. */
export type OnBody = (bytes: Buffer, start: number, end: number) => void;

export class Framer {
  readonly #limit: number;
  readonly #onBody: OnBody;
  readonly #header = Buffer.alloc(4);
  #headerFilled = 0;
  #body: Buffer | undefined;
  #bodyFilled = 0;
  #stopped = false;

  /**
   * @param limit largest body, bytes
   * @param onBody called for each body, synchronously, in order; may call `stop`
   */
  constructor(limit: number, onBody: OnBody) {
    this.#limit = limit;
    this.#onBody = onBody;
  }

  /** Drops whatever is pending and all that is still pushed. */
  stop(): void {
    this.#stopped = true;
    this.#body = undefined;
  }

  /**
   * @param end how many bytes of the chunk count
   * @throws LinkFrameError `too_large` for a length of 0 or over the limit; whatever onBody throws
   */
  push(chunk: Buffer, end = chunk.length): void {
    let at = 0;
    while (at < end && !this.#stopped) {
      if (this.#body !== undefined) {
        const taken = chunk.copy(this.#body, this.#bodyFilled, at, end);
        at += taken;
        this.#bodyFilled += taken;
        if (this.#bodyFilled < this.#body.length) return;
        const body = this.#body;
        this.#body = undefined;
        this.#onBody(body, 0, body.length);
        continue;
      }
      let length: number;
      if (this.#headerFilled === 0 && end - at >= 4) {
        length = chunk.readUInt32LE(at);
        at += 4;
      } else {
        this.#header[this.#headerFilled++] = chunk[at++];
        if (this.#headerFilled < 4) continue;
        this.#headerFilled = 0;
        length = this.#header.readUInt32LE(0);
      }
      if (length === 0 || length > this.#limit) {
        throw new LinkFrameError(
          "too_large",
          `the engine announced a frame of ${length} bytes (allowed: 1 to ${this.#limit})`,
          "Whatever listens at the draft socket is not this program's engine, or the stream is damaged.",
        );
      }
      if (end - at >= length) {
        at += length;
        this.#onBody(chunk, at - length, at);
      } else {
        this.#body = Buffer.allocUnsafeSlow(length);
        this.#bodyFilled = 0;
      }
    }
  }
}

/** One end of a raw connection, for tests: what came in so far, and promises for what is still to come. */
import { connect, type Socket } from "node:net";

export class Wire {
  readonly socket: Socket;
  /** Everything received, as Latin-1: one character per byte. */
  received = "";
  /** Settled when the connection is closed: "end" after an orderly end, "reset" after a reset. */
  readonly closed: Promise<"end" | "reset" | "cut">;
  /** Settled when the other side stopped sending or closed: it has left. */
  readonly left: Promise<void>;
  #waiting: { test: (received: string) => boolean; resolve: () => void; reject: (error: Error) => void }[] =
    [];
  #ended = false;
  #reset = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => {
      this.received += chunk.toString("latin1");
      this.#check();
    });
    socket.on("end", () => {
      this.#ended = true;
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNRESET") this.#reset = true;
    });
    this.left = new Promise((resolve) => {
      socket.on("end", resolve);
      socket.on("close", () => resolve());
    });
    this.closed = new Promise((resolve) =>
      socket.on("close", () => {
        resolve(this.#reset ? "reset" : this.#ended ? "end" : "cut");
        for (const { reject } of this.#waiting)
          reject(new Error(`closed after ${JSON.stringify(this.received)}`));
      }),
    );
  }

  static connect(port: number): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: "127.0.0.1" }, () => resolve(new Wire(socket)));
      socket.once("error", reject);
    });
  }

  #check(): void {
    this.#waiting = this.#waiting.filter(({ test, resolve }) => {
      if (!test(this.received)) return true;
      resolve();
      return false;
    });
  }

  /** Resolves when `needle` has been received; rejects when the connection closes before. */
  until(needle: string | ((received: string) => boolean)): Promise<void> {
    const test = typeof needle === "string" ? (received: string) => received.includes(needle) : needle;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ test, resolve, reject });
      this.#check();
      if (this.socket.closed && !test(this.received)) reject(new Error("closed"));
    });
  }

  write(bytes: string | Buffer): void {
    this.socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
  }

  /** The header block of the first message received. */
  get head(): string {
    return this.received.slice(0, this.received.indexOf("\r\n\r\n"));
  }

  /** All that came after the first header block. */
  get body(): string {
    return this.received.slice(this.received.indexOf("\r\n\r\n") + 4);
  }

  /** Header fields of the first message received, as sent. */
  get fields(): [name: string, value: string][] {
    return this.head
      .split("\r\n")
      .slice(1)
      .map((line) => {
        const colon = line.indexOf(":");
        return [line.slice(0, colon), line.slice(colon + 1).trim()];
      });
  }

  field(name: string): string | undefined {
    return this.fields.find(([key]) => key.toLowerCase() === name)?.[1];
  }

  end(): void {
    this.socket.end();
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/** The text of a POST request with a JSON body. */
export function post(path: string, body: unknown, extra = ""): string {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n${extra}\r\n${text}`;
}

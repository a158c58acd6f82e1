/**
 * One connection to an engine, for one request at a time. Written for what a proxy does all day: a request leaves in one write, and
 * what comes in is read into one buffer for all connections and handed on as Latin-1 text, without a stream in between.
 */
import { connect as connectPlain, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { EngineAddress } from "../engine/engine.ts";
import { type AnswerEvents, AnswerReader } from "./answer-reader.ts";
import { targetOf } from "./target.ts";

/** Longest time to open a connection to the engine, ms. */
const CONNECT_TIMEOUT_MS = 10_000;
/** A body up to this size, bytes, leaves together with its headers. */
const ONE_WRITE = 12 * 1024;

/** Every read ends here and is taken out at once; reads don't overlap. */
const landing = Buffer.alloc(64 * 1024);

export interface AnswerSink extends AnswerEvents {
  /** The connection broke before the answer was complete. */
  fail(error: Error): void;
}

export class EngineConnection {
  readonly #socket: Socket;
  readonly #reader: AnswerReader;
  #sink: AnswerSink | undefined;
  #paused = false;
  /** Since when it is free, ms of `performance.now`; kept by the pool. */
  idleSince = 0;

  /** @param closed told once, when the connection can't be used any more */
  constructor(address: EngineAddress, closed: () => void) {
    this.#reader = new AnswerReader({
      information: (status, rawHeaders) => this.#sink?.information(status, rawHeaders),
      start: (status, message, rawHeaders) => this.#sink?.start(status, message, rawHeaders),
      piece: (text) => this.#sink?.piece(text),
      end: (rawTrailers, reusable) => {
        const sink = this.#sink;
        this.#sink = undefined;
        sink?.end(rawTrailers, reusable);
      },
    });
    const socket = this.#connect(address);
    this.#socket = socket;
    socket.on("end", () => {
      try {
        this.#reader.finish();
        socket.destroy();
      } catch (error) {
        socket.destroy(error as Error);
      }
    });
    socket.on("error", (error) => this.#break(error));
    socket.on("close", () => {
      this.#break(new Error("the connection was closed"));
      closed();
    });
  }

  /** How long it may stay open without a request, ms, where the engine says so. */
  get idleLimit(): number | undefined {
    return this.#reader.idleLimit;
  }

  /** The last answer came in chunks, or as far as the connection went. */
  get streamed(): boolean {
    return this.#reader.streamed;
  }

  /** Sends a request: header block with its empty line, Latin-1, and body. Only after the last answer was complete. */
  send(head: string, body: Buffer, sink: AnswerSink): void {
    this.#sink = sink;
    const socket = this.#socket;
    if (body.length <= ONE_WRITE) {
      socket.write(head + body.toString("latin1"), "latin1");
      return;
    }
    socket.cork();
    socket.write(head, "latin1");
    socket.write(body);
    socket.uncork();
  }

  /** Closes it; an answer that is under way is not heard of any more. */
  destroy(): void {
    this.#sink = undefined;
    this.#socket.destroy();
  }

  /** Reads no more than what came already. */
  pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }

  #connect(address: EngineAddress): Socket {
    const { protocol, host, port, socketPath } = targetOf(address);
    const safe = protocol === "https:";
    const where =
      socketPath === undefined ? { host, port: Number(port) || (safe ? 443 : 80) } : { path: socketPath };
    if (safe) {
      const servername = isIP(host) === 0 ? host : undefined;
      const secure = connectTls({ ...where, servername, ALPNProtocols: ["http/1.1"] });
      secure.setNoDelay(true);
      secure.on("data", (chunk: Buffer) => this.#read(chunk.toString("latin1")));
      limitConnecting(secure, "secureConnect");
      return secure;
    }
    const socket = connectPlain({
      ...where,
      noDelay: true,
      onread: {
        buffer: landing,
        callback: (size) => {
          this.#read(landing.toString("latin1", 0, size));
          return true;
        },
      },
    });
    limitConnecting(socket, "connect");
    return socket;
  }

  #read(text: string): void {
    try {
      // an answer that nobody asked for
      if (this.#sink === undefined) throw new Error("there is more than an answer");
      this.#reader.read(text);
    } catch (error) {
      this.#break(error as Error);
      this.#socket.destroy();
    }
  }

  #break(error: Error): void {
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.fail(error);
  }
}

function limitConnecting(socket: Socket, connected: "connect" | "secureConnect"): void {
  const timer = setTimeout(() => {
    const error: NodeJS.ErrnoException = new Error(`no connection within ${CONNECT_TIMEOUT_MS} ms`);
    error.code = "ETIMEDOUT";
    socket.destroy(error);
  }, CONNECT_TIMEOUT_MS);
  const clear = (): void => clearTimeout(timer);
  socket.once(connected, clear);
  socket.once("close", clear);
}

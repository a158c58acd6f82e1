/**
 * The client's side of one exchange: passes the engine's answer on as it comes, and sees to it that an answer that breaks
 * off never looks complete. Both forwarders (forward.ts, passthrough.ts) and the WebSocket handshake end here.
 */
import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Metrics } from "../metrics.ts";
import type { Connections, Exchange } from "./connections.ts";
import { badAnswer, draining, type Fault } from "./faults.ts";
import { type Arm, headerValue, pairs, responseHeaders } from "./headers.ts";
import { errorEvent, isPlainEventStream, type StreamDialect } from "./sse.ts";

/** The engine's side of the exchange. */
export interface Upstream {
  /** Break it off now; nothing of it is wanted any more. */
  abort(): void;
  /** The client can take more after `write` returned false. */
  resume(): void;
}

export interface RelayOptions {
  /** Label in the metrics: a generation route's name, or what kind of other route it was. */
  route: string;
  dialect?: StreamDialect;
}

export interface RelayLimits {
  /** Longest time that the client takes nothing of an answer that waits for it, ms; 0: no limit. */
  readIdleMs: number;
}

/** How long an error event may take to reach a slow client, and a refused upload to be drained, ms. */
const LINGER_MS = 2000;

/** How much of an answer's end is kept, at the least, to read the engine's counts from. */
const TAIL_BYTES = 4096;

const ID_PREFIX = randomBytes(6).toString("hex");
let nextRequest = 1;

/** The client's own `x-request-id` if it can go into headers and logs as it is, otherwise a new one. */
function requestIdOf(request: IncomingMessage): string {
  const own = request.headers["x-request-id"];
  if (typeof own === "string" && /^[\w.:/+=@-]{1,128}$/.test(own)) return own;
  return `${ID_PREFIX}-${(nextRequest++).toString(36)}`;
}

/** A refused request whose body is at most this long is read to its end, so that the connection can go on. */
const SMALL_REST = 1 << 20;

export class Relay implements Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Set once it is known; sent as `x-aded-arm`. */
  arm: Arm | undefined;
  /** Told the end of a generated answer's body, Latin-1, when it is complete. */
  onEnd: ((tail: string) => void) | undefined;
  /** Why no answer could be given, or not to its end. */
  fault: Fault | undefined;
  /** Called when the answer was sent, with the time since the request came, ms. */
  onFinish: ((ms: number) => void) | undefined;
  /** Called when an answer that had begun broke off; `fault` says why. */
  onBreak: (() => void) | undefined;
  #route: string;
  #dialect: StreamDialect;
  readonly #socket: Socket;
  readonly #connections: Connections;
  readonly #metrics: Metrics;
  #upstream: Upstream | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #readIdle: number;
  /** Runs while the client takes nothing. */
  #stall: NodeJS.Timeout | undefined;
  #started = false;
  #wrote = false;
  #done = false;
  #eventStream = false;
  /** The body goes out in chunks; they are framed here. */
  #chunked = false;
  /** False: the body ends with the connection. */
  #framed = true;
  /** An event stream was begun to tell how the wait goes: the engine's answer continues it. */
  #announced = false;
  #whenDone: (() => void)[] = [];
  readonly #begun = performance.now();
  #lastPiece = 0;
  #tail = "";
  /** Name of the model that answers, once it is known. */
  model: string | undefined;
  /** Id of the request, for the client and the log. */
  readonly requestId: string;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    context: { connections: Connections; metrics: Metrics },
    options: RelayOptions & RelayLimits,
  ) {
    this.request = request;
    this.response = response;
    this.#socket = request.socket;
    this.#connections = context.connections;
    this.#metrics = context.metrics;
    this.#route = options.route;
    this.#dialect = options.dialect ?? "openai";
    this.requestId = requestIdOf(request);
    // Writing to a connection that has just closed is no news: Connections reports it.
    response.on("error", () => undefined);
    this.#readIdle = options.readIdleMs;
    response.on("drain", () => {
      clearTimeout(this.#stall);
      this.#upstream?.resume();
    });
    response.on("finish", () => this.#finished());
    this.#connections.begin(this.#socket, this);
  }

  /** True when nothing more will be sent: finished, failed, or the client has left. */
  get done(): boolean {
    return this.#done;
  }

  /** Calls `callback` once, when nothing more will be sent or the client has left; at once when that is so already. */
  onDone(callback: () => void): void {
    if (this.#done) callback();
    else this.#whenDone.push(callback);
  }

  #settle(): void {
    if (this.#done) return;
    this.#done = true;
    clearTimeout(this.#timer);
    for (const callback of this.#whenDone.splice(0)) callback();
  }

  /** What kind of answer it is, once routing knows. */
  describe(options: RelayOptions): void {
    this.#route = options.route;
    this.#dialect = options.dialect ?? "openai";
  }

  /** Names the engine's side; aborts it at once when the client has already left. */
  attach(upstream: Upstream): void {
    this.#upstream = upstream;
    if (this.#done) upstream.abort();
  }

  /** Fails with `fault` unless headers arrive within `ms`; 0: wait for ever. */
  expectHeaders(ms: number, fault: () => Fault): void {
    if (ms > 0) this.#timer = setTimeout(() => this.fail(fault()), ms);
  }

  /** Passes a 1xx answer on, where Node can send such a one; the final answer does not depend on it. */
  information(status: number, rawHeaders: readonly string[]): void {
    if (this.#done || this.#started || this.request.httpVersion === "1.0") return;
    if (status === 102) this.response.writeProcessing();
    else if (status === 103) this.#hint(rawHeaders);
  }

  #hint(rawHeaders: readonly string[]): void {
    const hints: Record<string, string | string[]> = {};
    for (const [field, value] of pairs(rawHeaders)) {
      const name = field.toLowerCase();
      hints[name] = name in hints ? [hints[name], value].flat() : value;
    }
    try {
      this.response.writeEarlyHints(hints);
    } catch {
      // Node knows fewer forms of the Link field than there are.
    }
  }

  /** Begins an event stream before the engine answers, and puts comments into it that tell how the wait goes. */
  announce(comment: string): void {
    if (this.#done || this.#started) return;
    if (!this.#announced) {
      this.#announced = true;
      this.#eventStream = true;
      this.#writeHead(200, "OK", [
        ...["Content-Type", "text/event-stream", "Cache-Control", "no-cache"],
        ...["x-request-id", this.requestId],
      ]);
    }
    this.#body(Buffer.from(`: ${comment}\n\n`).toString("latin1"));
  }

  /** The engine's answer to a client that has an event stream already: it goes on if that is what the engine sends. */
  #continue(status: number, rawHeaders: readonly string[]): void {
    this.#started = true;
    this.#wrote = true;
    clearTimeout(this.#timer);
    const type = headerValue(rawHeaders, "content-type");
    if (status === 200 && isPlainEventStream(type, headerValue(rawHeaders, "content-encoding"))) return;
    this.fail(badAnswer(this.model ?? "", status));
  }

  /** Sends status line and headers, as the engine sent them. */
  start(status: number, message: string, rawHeaders: readonly string[]): void {
    if (this.#done) return;
    if (this.#announced) {
      this.#continue(status, rawHeaders);
      return;
    }
    this.#started = true;
    clearTimeout(this.#timer);
    const http10 = this.request.httpVersion === "1.0";
    const sized = headerValue(rawHeaders, "content-length") !== undefined;
    const headers = responseHeaders(rawHeaders, http10);
    if (this.arm !== undefined) headers.push("x-aded-arm", this.arm);
    if (this.#tellsId) headers.push("x-request-id", this.requestId);
    this.#framed = sized || !http10;
    this.#eventStream =
      !sized &&
      isPlainEventStream(
        headerValue(rawHeaders, "content-type"),
        headerValue(rawHeaders, "content-encoding"),
      );
    this.response.sendDate = false;
    if (this.#connections.draining) this.response.shouldKeepAlive = false;
    this.#writeHead(status, message, headers);
    // A small answer comes in one piece with its headers and should leave so; a stream's headers must not wait for its body.
    process.nextTick(flushHeaders, this);
  }

  /**
   * Sends a piece of the body: Latin-1, one character per byte. A short string is written without a buffer of its own, together
   * with what frames it and with the headers if they are still to go.
   * @returns false when the engine should pause until `Upstream.resume`
   */
  write(piece: string): boolean {
    if (this.#done) return true;
    this.#wrote = true;
    if (this.arm !== undefined) this.#observe(piece);
    const taken = this.#body(piece);
    if (!taken) this.#watchReader();
    return taken;
  }

  /** From now on until the client takes something: it may be gone without a word, and holds a slot. */
  #watchReader(): void {
    if (this.#readIdle === 0 || this.#socket.destroyed) return;
    clearTimeout(this.#stall);
    const before = this.#socket.bytesWritten - this.#socket.writableLength;
    this.#stall = setTimeout(() => {
      if (this.response.writableFinished) return;
      if (this.#socket.bytesWritten - this.#socket.writableLength > before) this.#watchReader();
      else this.#socket.resetAndDestroy();
    }, this.#readIdle);
    this.#stall.unref();
  }

  #writeHead(status: number, message: string, headers: string[]): void {
    const { response } = this;
    response.writeHead(status, message, headers);
    // from here on Node takes what it is given for the body's bytes: four writes for each chunk would cost more than all the rest
    this.#chunked = response.chunkedEncoding;
    response.chunkedEncoding = false;
  }

  #body(text: string, written?: () => void): boolean {
    const framed = this.#chunked ? `${text.length.toString(16)}\r\n${text}\r\n` : text;
    return this.response.write(framed, "latin1", written);
  }

  /** The engine's answer is complete. */
  end(rawTrailers: readonly string[]): void {
    if (this.#done) return;
    this.#settle();
    if (this.#tail !== "") this.#metrics.answered(this.model ?? "", this.#tail);
    this.onEnd?.(this.#tail);
    const { response } = this;
    if (this.#chunked) response.write(`0\r\n${block(rawTrailers)}\r\n`, "latin1");
    // what is there leaves now: `end` would add an empty piece to it, and two pieces take the long way
    response.socket?.uncork();
    response.end();
  }

  /** The answer cannot be given, or not to its end: says so in the way that is still open. */
  fail(fault: Fault): void {
    if (this.#done) return;
    this.#settle();
    this.fault = fault;
    this.#metrics.faults.inc({ kind: fault.kind });
    if (this.#started || this.response.headersSent) this.#breakOff(fault);
    else this.#answer(fault);
    this.#upstream?.abort();
  }

  /** Answers with JSON of the proxy's own. */
  json(status: number, body: unknown): void {
    if (this.#done) return;
    this.#settle();
    this.#send(status, body, []);
  }

  /** The connection became a tunnel: the exchange is over without an answer of the HTTP kind. */
  handOver(): void {
    this.#settle();
    this.#connections.finish(this.#socket, this);
  }

  clientGone(): void {
    clearTimeout(this.#stall);
    const complete = this.response.writableFinished;
    this.#settle();
    if (!complete) {
      this.#metrics.faults.inc({ kind: "client_gone" });
      this.#upstream?.abort();
    }
  }

  shutDown(): void {
    this.fail(draining());
  }

  /** Sends the headers when no piece of the body has taken them along. (`flushHeaders` would send them as UTF-8.) */
  flush(): void {
    if (!this.#wrote && !this.#done) this.response.write("", "latin1");
  }

  #finished(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#stall);
    this.#connections.finish(this.#socket, this);
    this.#metrics.requests.inc({
      route: this.#route,
      arm: this.arm ?? "none",
      code: String(this.response.statusCode),
      model: this.model ?? "",
    });
    this.onFinish?.(performance.now() - this.#begun);
  }

  /** Times of a generation request's answer, and its end, which holds the engine's own counts. */
  #observe(piece: string): void {
    const now = performance.now();
    const model = this.model ?? "";
    if (this.#lastPiece === 0) this.#metrics.firstPiece(model, (now - this.#begun) / 1000);
    else if (this.#eventStream) this.#metrics.nextPiece(model, (now - this.#lastPiece) / 1000);
    this.#lastPiece = now;
    // the counts stand in the last event but the closing one; an answer in one piece may be cut anywhere
    this.#tail += piece;
    if (this.#tail.length > 4 * TAIL_BYTES) this.#tail = this.#tail.slice(-TAIL_BYTES);
  }

  /** An answer of the engine's own is left as it is unless the client asked for an id, or gets a header of ours anyway. */
  get #tellsId(): boolean {
    return this.arm !== undefined || this.request.headers["x-request-id"] !== undefined;
  }

  #answer(fault: Fault): void {
    const extra = fault.retryAfterS === undefined ? [] : ["Retry-After", String(fault.retryAfterS)];
    this.#send(fault.status, fault.body, extra);
  }

  #send(status: number, body: unknown, extra: readonly string[]): void {
    const bytes = Buffer.from(JSON.stringify(body));
    const headers = [
      "Content-Type",
      "application/json; charset=utf-8",
      "Content-Length",
      String(bytes.length),
    ];
    headers.push(...extra);
    if (this.arm !== undefined) headers.push("x-aded-arm", this.arm);
    headers.push("x-request-id", this.requestId);
    const { request, response } = this;
    const uninvited = request.headers.expect !== undefined;
    const uploading = !uninvited && restOfBody(request) > SMALL_REST;
    // A client that still waits for "100 Continue" may send its body or not: this connection cannot go on.
    if (uninvited || uploading || this.#connections.draining) response.shouldKeepAlive = false;
    response.writeHead(status, headers);
    if (!uploading) {
      response.end(bytes);
      return;
    }
    // Closing while the client is still sending would reset the connection and could lose it this answer: read on a while.
    response.write(bytes);
    const timer = setTimeout(() => response.end(), LINGER_MS);
    request.once("end", () => response.end());
    request.once("close", () => {
      clearTimeout(timer);
      response.end();
    });
    request.resume();
  }

  /** After headers: an error event where the body is an event stream; in any case no clean end. */
  #breakOff(fault: Fault): void {
    this.onBreak?.();
    const response = this.response;
    if (this.#eventStream) {
      const timer = setTimeout(() => response.destroy(), LINGER_MS);
      response.once("close", () => clearTimeout(timer));
      const event = Buffer.from(errorEvent(fault.body, this.#dialect)).toString("latin1");
      this.#body(event, () => response.destroy());
      return;
    }
    // Where the end of the connection is the end of the body, only a reset tells the client that something is missing.
    if (!this.#framed && this.#socket.remoteFamily !== undefined) this.#socket.resetAndDestroy();
    else response.destroy();
  }
}

/** Header lines of a flat list. */
function block(raw: readonly string[]): string {
  let lines = "";
  for (let i = 0; i < raw.length; i += 2) lines += `${raw[i]}: ${raw[i + 1]}\r\n`;
  return lines;
}

/** Most bytes that may still come in with a request: 0 when it is complete, infinite when unknown. */
function restOfBody(request: IncomingMessage): number {
  if (request.complete) return 0;
  if (request.headers["transfer-encoding"] !== undefined) return Number.POSITIVE_INFINITY;
  return Number(request.headers["content-length"] ?? 0);
}

function flushHeaders(relay: Relay): void {
  relay.flush();
}

/**
 * The forwarder of generation routes: one buffered request to the engine over a kept-alive connection, its answer passed on
 * piece by piece. Errors of either side reach the other at once.
 */
import { Client, type Dispatcher } from "undici";
import type { Engine, EngineAddress } from "../engine/engine.ts";
import { engineFault } from "./faults.ts";
import { headerValue } from "./headers.ts";
import type { Relay, Upstream } from "./relay.ts";

/** Longest time to open a connection to the engine, ms. */
const CONNECT_TIMEOUT_MS = 10_000;
/** Largest response header block taken from an engine, bytes. */
const MAX_RESPONSE_HEADERS = 64 * 1024;

export interface ForwardRequest {
  method: string;
  /** Request target as the client sent it. */
  target: string;
  /** Name, value, name, value …; without framing. */
  headers: string[];
  body: Buffer;
}

export class Forwarder {
  readonly #pools = new Map<Engine, EnginePool>();

  /** Sends the request; everything that follows happens through `relay`. */
  forward(engine: Engine, request: ForwardRequest, relay: Relay): void {
    const { method, target, headers, body } = request;
    const pool = this.#poolOf(engine);
    const client = pool.take();
    const exchange = new ForwardExchange(engine.model, relay, (reusable) => pool.give(client, reusable));
    relay.attach(exchange);
    if (relay.done) pool.give(client, true);
    else client.dispatch({ method: method as Dispatcher.HttpMethod, path: target, headers, body }, exchange);
  }

  async close(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(pools.map((pool) => pool.destroy()));
  }

  /** A restarted engine may listen elsewhere: its old connections are closed when their last answers are done. */
  #poolOf(engine: Engine): EnginePool {
    const known = this.#pools.get(engine);
    if (known?.leadsTo(engine.address)) return known;
    known?.retire();
    const pool = new EnginePool(engine.address);
    this.#pools.set(engine, pool);
    return pool;
  }
}

/**
 * Connections to one address, each for one request at a time. undici's own pool would use a connection again after any
 * complete answer; llama-server closes one after a stream without saying so before, and the next request would meet that.
 */
class EnginePool {
  readonly #address: EngineAddress;
  readonly #idle: Client[] = [];
  readonly #busy = new Set<Client>();
  #retired = false;

  constructor({ origin, socketPath }: EngineAddress) {
    this.#address = { origin, socketPath };
  }

  leadsTo({ origin, socketPath }: EngineAddress): boolean {
    return this.#address.origin === origin && this.#address.socketPath === socketPath;
  }

  /** The connection used last of those that are free, or a new one. */
  take(): Client {
    const client = this.#idle.pop() ?? this.#create();
    this.#busy.add(client);
    return client;
  }

  /** Takes a connection back when its answer is complete or broken. */
  give(client: Client, reusable: boolean): void {
    this.#busy.delete(client);
    if (reusable && !this.#retired) this.#idle.push(client);
    else queueMicrotask(() => void client.destroy()); // undici is still at work on its answer
  }

  /** Lets running answers go on, but takes no more requests. */
  retire(): void {
    this.#retired = true;
    for (const client of this.#idle.splice(0)) void client.destroy();
  }

  async destroy(): Promise<void> {
    this.retire();
    await Promise.all([...this.#busy].map((client) => client.destroy()));
  }

  #create(): Client {
    const { origin, socketPath } = this.#address;
    return new Client(origin, {
      pipelining: 1,
      connect: { timeout: CONNECT_TIMEOUT_MS, socketPath },
      headersTimeout: 0,
      bodyTimeout: 0,
      maxHeaderSize: MAX_RESPONSE_HEADERS,
    });
  }
}

class ForwardExchange implements Dispatcher.DispatchHandler, Upstream {
  readonly #model: string;
  readonly #relay: Relay;
  /** Told once, at the end: can the connection carry another request? */
  readonly #release: (reusable: boolean) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #aborted = false;
  #complete = false;
  #streamed = false;

  constructor(model: string, relay: Relay, release: (reusable: boolean) => void) {
    this.#model = model;
    this.#relay = relay;
    this.#release = release;
  }

  abort(): void {
    if (this.#aborted || this.#complete) return;
    this.#aborted = true;
    this.#controller?.abort(new Error("the client left"));
  }

  resume(): void {
    this.#controller?.resume();
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#aborted) controller.abort(new Error("the client left"));
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    _headers: unknown,
    message?: string,
  ): void {
    const headers = strings(controller.rawHeaders);
    if (status < 200) {
      this.#relay.information(status, headers);
      return;
    }
    this.#streamed = headerValue(headers, "transfer-encoding") !== undefined;
    this.#relay.start(status, message ?? "", headers);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#relay.write(chunk)) controller.pause();
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    this.#complete = true;
    this.#relay.end(strings(controller.rawTrailers));
    this.#release(!this.#streamed);
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    this.#complete = true;
    this.#relay.fail(engineFault(this.#model, error));
    this.#release(false);
  }
}

/** Header fields are bytes on the wire: Latin-1 keeps each one. */
function strings(raw: Dispatcher.DispatchController["rawHeaders"]): string[] {
  if (!Array.isArray(raw)) return [];
  return raw.map((field: Buffer | string) => (typeof field === "string" ? field : field.toString("latin1")));
}

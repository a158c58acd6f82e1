/**
 * The forwarder of generation routes: one buffered request to the engine over a pool of kept-alive connections, its
 * answer passed on piece by piece. Errors of either side reach the other at once.
 */
import { type Dispatcher, Pool } from "undici";
import type { Engine, EngineAddress } from "../engine/engine.ts";
import { engineFault } from "./faults.ts";
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

interface EnginePool {
  address: EngineAddress;
  pool: Pool;
}

export class Forwarder {
  readonly #pools = new Map<Engine, EnginePool>();

  /** Sends the request; everything that follows happens through `relay`. */
  forward(engine: Engine, request: ForwardRequest, relay: Relay): void {
    const { method, target, headers, body } = request;
    const exchange = new ForwardExchange(engine.model, relay);
    relay.attach(exchange);
    if (relay.done) return;
    this.#poolOf(engine).dispatch(
      { method: method as Dispatcher.HttpMethod, path: target, headers, body },
      exchange,
    );
  }

  async close(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(pools.map(({ pool }) => pool.destroy()));
  }

  /** A restarted engine may listen elsewhere: its old pool is closed when its last answer is done. */
  #poolOf(engine: Engine): Pool {
    const { origin, socketPath } = engine.address;
    const known = this.#pools.get(engine);
    if (known?.address.origin === origin && known.address.socketPath === socketPath) return known.pool;
    known?.pool.close(() => undefined);
    const pool = new Pool(origin, {
      connections: null,
      pipelining: 1,
      connect: { timeout: CONNECT_TIMEOUT_MS, socketPath },
      headersTimeout: 0,
      bodyTimeout: 0,
      maxHeaderSize: MAX_RESPONSE_HEADERS,
    });
    this.#pools.set(engine, { address: { origin, socketPath }, pool });
    return pool;
  }
}

class ForwardExchange implements Dispatcher.DispatchHandler, Upstream {
  readonly #model: string;
  readonly #relay: Relay;
  #controller: Dispatcher.DispatchController | undefined;
  #aborted = false;
  #complete = false;

  constructor(model: string, relay: Relay) {
    this.#model = model;
    this.#relay = relay;
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
    if (status < 200) this.#relay.information(status, headers);
    else this.#relay.start(status, message ?? "", headers);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#relay.write(chunk)) controller.pause();
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    this.#complete = true;
    this.#relay.end(strings(controller.rawTrailers));
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    this.#complete = true;
    this.#relay.fail(engineFault(this.#model, error));
  }
}

/** Header fields are bytes on the wire: Latin-1 keeps each one. */
function strings(raw: Dispatcher.DispatchController["rawHeaders"]): string[] {
  if (!Array.isArray(raw)) return [];
  return raw.map((field: Buffer | string) => (typeof field === "string" ? field : field.toString("latin1")));
}

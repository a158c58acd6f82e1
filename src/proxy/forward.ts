/**
 * The forwarder of generation routes: one buffered request to the engine over a kept-alive connection, its answer passed on
 * piece by piece. Errors of either side reach the other at once.
 */
import type { Engine } from "../engine/engine.ts";
import type { AnswerSink, EngineConnection } from "./engine-connection.ts";
import { EnginePool } from "./engine-pool.ts";
import { badRequest, engineFault } from "./faults.ts";
import { headerValue } from "./headers.ts";
import type { Relay, Upstream } from "./relay.ts";

export interface ForwardRequest {
  method: string;
  /** Request target as the client sent it. */
  target: string;
  /** Name, value, name, value …; without framing. */
  headers: readonly string[];
  body: Buffer;
}

export class Forwarder {
  readonly #pools = new Map<Engine, EnginePool>();

  /** Sends the request; everything that follows happens through `relay`. */
  forward(engine: Engine, request: ForwardRequest, relay: Relay): void {
    const head = headOf(request, engine);
    if (head === undefined) {
      relay.fail(badRequest("A header has a line break within its value", "invalid_header"));
      return;
    }
    if (relay.done) return;
    const pool = this.#poolOf(engine);
    const exchange = new ForwardExchange(engine.model, relay, pool);
    relay.attach(exchange);
    exchange.connection.send(head, request.body, exchange);
  }

  close(): void {
    for (const pool of this.#pools.values()) pool.destroy();
    this.#pools.clear();
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

const BREAK = /[\0\r\n]/;

/** Request line and headers, Latin-1; undefined when they would not be understood as that. */
function headOf({ method, target, headers, body }: ForwardRequest, engine: Engine): string | undefined {
  let head = `${method} ${target} HTTP/1.1\r\n`;
  if (BREAK.test(target)) return undefined;
  for (let i = 0; i < headers.length; i += 2) {
    if (BREAK.test(headers[i + 1])) return undefined;
    head += `${headers[i]}: ${headers[i + 1]}\r\n`;
  }
  // HTTP/1.0 needs none
  if (headerValue(headers, "host") === undefined) head += `Host: ${new URL(engine.address.origin).host}\r\n`;
  return `${head}Content-Length: ${body.length}\r\n\r\n`;
}

class ForwardExchange implements AnswerSink, Upstream {
  readonly connection: EngineConnection;
  readonly #model: string;
  readonly #relay: Relay;
  readonly #pool: EnginePool;
  #over = false;

  constructor(model: string, relay: Relay, pool: EnginePool) {
    this.#model = model;
    this.#relay = relay;
    this.#pool = pool;
    this.connection = pool.take();
  }

  abort(): void {
    if (this.#over) return;
    this.#over = true;
    this.connection.destroy();
  }

  resume(): void {
    if (!this.#over) this.connection.resume();
  }

  information(status: number, rawHeaders: string[]): void {
    this.#relay.information(status, rawHeaders);
  }

  start(status: number, message: string, rawHeaders: string[]): void {
    this.#relay.start(status, message, rawHeaders);
  }

  piece(text: string): void {
    if (!this.#relay.write(text) && !this.#over) this.connection.pause();
  }

  end(rawTrailers: string[], reusable: boolean): void {
    this.#over = true;
    this.#relay.end(rawTrailers);
    this.#pool.give(this.connection, reusable);
  }

  fail(error: Error): void {
    this.#over = true;
    this.#relay.fail(engineFault(this.#model, error));
  }
}

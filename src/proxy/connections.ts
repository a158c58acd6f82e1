/**
 * Which client connections are open and what is running on each. Tells a running exchange at once that its client left, and
 * lets the server go down in order.
 */
import type { Server } from "node:http";
import type { Socket } from "node:net";

/** One request and its answer, or one tunnel. */
export interface Exchange {
  /** The client's connection is gone. */
  clientGone(): void;
  /** The server goes down now: end with an error. */
  shutDown(): void;
}

/** What slow clients get to read a last error event before their connection is cut, ms. */
const LAST_WORDS_MS = 500;

export class Connections {
  readonly #server: Server;
  /**
   * What runs on each connection; seldom more than one. Lists, because a set that takes and loses an element for each request makes
   * a new table again and again, and the old ones keep what was in them from being collected soon.
   */
  readonly #sockets = new Map<Socket, Exchange[]>();
  #running = 0;
  /** Those that the proxy answers itself. */
  readonly #own = new Set<Exchange>();
  readonly #tunnels = new WeakSet<Socket>();
  #draining = false;
  #whenIdle: (() => void) | undefined;

  constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket: Socket) => this.#open(socket));
  }

  /** Exchanges that an engine answers: whoever asks for the status, or watches the dashboard, does not count. */
  get running(): number {
    return this.#running - this.#own.size;
  }

  get draining(): boolean {
    return this.#draining;
  }

  #open(socket: Socket): void {
    const exchanges: Exchange[] = [];
    this.#sockets.set(socket, exchanges);
    // A client that closes its sending side has left; Node thinks so too, but first waits for what is still to be written.
    socket.on("end", () => {
      if (!this.#tunnels.has(socket)) socket.destroy();
    });
    socket.on("close", () => {
      this.#sockets.delete(socket);
      for (const exchange of exchanges.splice(0)) {
        this.#release(exchange);
        exchange.clientGone();
      }
    });
  }

  /** The exchange now runs on this connection, until `finish`. */
  begin(socket: Socket, exchange: Exchange): void {
    const exchanges = this.#sockets.get(socket);
    if (exchanges === undefined) {
      exchange.clientGone();
      return;
    }
    exchanges.push(exchange);
    this.#running++;
  }

  /** The proxy answers this exchange, which runs on this connection, itself. */
  markOwn(socket: Socket, exchange: Exchange): void {
    if (this.#sockets.get(socket)?.includes(exchange)) this.#own.add(exchange);
  }

  finish(socket: Socket, exchange: Exchange): void {
    const exchanges = this.#sockets.get(socket);
    const at = exchanges?.indexOf(exchange) ?? -1;
    if (at < 0) return;
    exchanges?.splice(at, 1);
    this.#release(exchange);
  }

  #release(exchange: Exchange): void {
    this.#running--;
    if (this.#own.size > 0) this.#own.delete(exchange);
    if (!this.#draining) return;
    // The connection counts as idle one turn after its response is done.
    setImmediate(() => this.#server.closeIdleConnections());
    if (this.#running === 0) this.#whenIdle?.();
  }

  /** This connection became a tunnel: it stays open when only one side has finished sending. */
  markTunnel(socket: Socket): void {
    this.#tunnels.add(socket);
  }

  /** Lets running exchanges finish for `drainMs`, then ends them with an error. Resolves when every connection is closed. */
  async drain(drainMs: number): Promise<void> {
    this.#draining = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    if (this.#running > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, drainMs);
        this.#whenIdle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    for (const exchange of [...this.#sockets.values()].flat()) exchange.shutDown();
    const last = setTimeout(() => {
      for (const socket of this.#sockets.keys()) socket.destroy();
    }, LAST_WORDS_MS);
    await closed;
    clearTimeout(last);
  }
}

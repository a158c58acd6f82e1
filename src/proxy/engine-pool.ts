/**
 * The connections to one address of an engine. One that carried a whole answer is used again; llama-server closes one after a stream
 * without saying so before, and the next request would meet that.
 */
import type { EngineAddress } from "../engine/engine.ts";
import { EngineConnection } from "./engine-connection.ts";

/** A free connection is given up before llama-server closes it (after 5 s): a request must not meet the closing. */
const IDLE_MS = 4000;
/** How long before the time that an engine names itself, ms. */
const MARGIN_MS = 1000;
/** Between two looks for connections that were free too long, ms. */
const SWEEP_MS = 1000;

export class EnginePool {
  readonly #address: EngineAddress;
  readonly #idle: EngineConnection[] = [];
  readonly #all = new Set<EngineConnection>();
  #sweeper: NodeJS.Timeout | undefined;
  #retired = false;

  constructor({ origin, socketPath }: EngineAddress) {
    this.#address = { origin, socketPath };
  }

  leadsTo({ origin, socketPath }: EngineAddress): boolean {
    return this.#address.origin === origin && this.#address.socketPath === socketPath;
  }

  /** The connection used last of those that are free, or a new one. */
  take(): EngineConnection {
    const now = performance.now();
    for (let free = this.#idle.pop(); free !== undefined; free = this.#idle.pop()) {
      if (now - free.idleSince < limitOf(free)) return free;
      free.destroy();
    }
    const made = new EngineConnection(this.#address, () => this.#forget(made));
    this.#all.add(made);
    return made;
  }

  /** Takes a connection back when its answer is complete or was broken off. */
  give(connection: EngineConnection, reusable: boolean): void {
    if (!reusable || connection.streamed || this.#retired || limitOf(connection) <= 0) {
      connection.destroy();
      return;
    }
    // its last piece may have been more than the client took at once
    connection.resume();
    connection.idleSince = performance.now();
    this.#idle.push(connection);
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
  }

  /** Lets running answers go on, but takes no more requests. */
  retire(): void {
    this.#retired = true;
    this.#stopSweeping();
    for (const free of this.#idle.splice(0)) free.destroy();
  }

  destroy(): void {
    this.retire();
    for (const connection of this.#all) connection.destroy();
  }

  #forget(connection: EngineConnection): void {
    this.#all.delete(connection);
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
  }

  /** The longest idle ones come first. */
  #sweep(): void {
    const now = performance.now();
    let stale = 0;
    while (stale < this.#idle.length && now - this.#idle[stale].idleSince >= limitOf(this.#idle[stale]))
      stale++;
    for (const free of this.#idle.splice(0, stale)) free.destroy();
    if (this.#idle.length === 0) this.#stopSweeping();
  }

  #stopSweeping(): void {
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }
}

function limitOf(connection: EngineConnection): number {
  const { idleLimit } = connection;
  return idleLimit === undefined ? IDLE_MS : Math.min(IDLE_MS, idleLimit - MARGIN_MS);
}

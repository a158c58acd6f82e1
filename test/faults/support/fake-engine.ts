/** An engine for tests: a real socket server that does what the test tells it, behind the `Engine` interface. */
import { EventEmitter } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Engine, EngineAddress, EngineEvents, EngineSnapshot } from "../../../src/engine/engine.ts";
import { Wire } from "./wire.ts";

export interface FakeEngineOptions {
  model?: string;
  /** Listen on a Unix socket. */
  unix?: boolean;
}

export class FakeEngine extends EventEmitter<EngineEvents> implements Engine {
  readonly model: string;
  readonly address: EngineAddress;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #folder: string | undefined;
  #snapshot: EngineSnapshot;
  #wires: Wire[] = [];
  #waiting: ((wire: Wire) => void)[] = [];

  private constructor(server: Server, model: string, address: EngineAddress, folder?: string) {
    super();
    this.model = model;
    this.address = address;
    this.#server = server;
    this.#folder = folder;
    this.#snapshot = { model, state: "ready", restarts: 0, kind: "patched", pid: 4242 };
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => undefined);
    });
  }

  static async #listen(server: Server, { model = "m", unix }: FakeEngineOptions): Promise<FakeEngine> {
    if (unix) {
      const folder = mkdtempSync(join(tmpdir(), "fake-engine-"));
      const socketPath = join(folder, "s");
      await new Promise<void>((resolve) => server.listen(socketPath, resolve));
      return new FakeEngine(server, model, { origin: "http://localhost", socketPath }, folder);
    }
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    return new FakeEngine(server, model, { origin: `http://127.0.0.1:${port}` });
  }

  /** An engine that answers with Node's HTTP server. */
  static http(listener: RequestListener, options: FakeEngineOptions = {}): Promise<FakeEngine> {
    return FakeEngine.#listen(createHttpServer({ maxHeaderSize: 1 << 20 }, listener), options);
  }

  /** An engine whose every byte is the test's; see `connection`. */
  static async raw(options: FakeEngineOptions = {}): Promise<FakeEngine> {
    const server = createServer({ allowHalfOpen: true });
    const engine = await FakeEngine.#listen(server, options);
    server.on("connection", (socket: Socket) => {
      const wire = new Wire(socket);
      const next = engine.#waiting.shift();
      if (next === undefined) engine.#wires.push(wire);
      else next(wire);
    });
    return engine;
  }

  /** An engine that was there and is gone: connections are refused. */
  static async gone(): Promise<FakeEngine> {
    const engine = await FakeEngine.raw();
    await engine.close();
    return engine;
  }

  /** The next connection that the proxy opens (raw engines). */
  connection(): Promise<Wire> {
    const ready = this.#wires.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Connections open at this moment. */
  get open(): number {
    return this.#sockets.size;
  }

  snapshot(): EngineSnapshot {
    return this.#snapshot;
  }

  set(change: Partial<EngineSnapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...change };
    this.emit("state", this.#snapshot);
  }

  start(): Promise<void> {
    return Promise.resolve();
  }

  stop(): Promise<void> {
    return this.close();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** An engine's draft socket: a real Unix server that records what the peer sends and lets a test wait for it. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { frame, parse, type Received } from "./wire.ts";

type Waiter = { test: () => boolean; done: () => void };

export class FakeEngine {
  readonly directory = mkdtempSync(join(tmpdir(), "aded-link-"));
  readonly path = join(this.directory, "draft.sock");
  readonly received: Received[] = [];
  connections = 0;
  peer: Socket | undefined;
  #server: Server | undefined;
  #waiters: Waiter[] = [];

  async listen(): Promise<void> {
    const server = createServer((socket) => {
      let pending: Buffer = Buffer.alloc(0);
      this.connections++;
      this.peer = socket;
      socket.on("data", (chunk) => {
        const { frames, rest } = parse(Buffer.concat([pending, chunk]));
        pending = rest;
        this.received.push(...frames);
        this.#notify();
      });
      socket.on("error", () => {});
      socket.on("close", () => {
        if (this.peer === socket) this.peer = undefined;
        this.#notify();
      });
      this.#notify();
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.path, resolve));
  }

  send(...maps: object[]): void {
    this.raw(Buffer.concat(maps.map(frame)));
  }

  raw(data: Buffer): void {
    if (this.peer === undefined) throw new Error("no peer is connected");
    this.peer.write(data);
  }

  /** Resolves once `test` holds; looked at after each thing that happens on the socket. */
  until(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((done) => this.#waiters.push({ test, done }));
  }

  /** The nth (from 0) frame of a type, when it has come. */
  async frame(type: string, nth = 0): Promise<Received> {
    const of = () => this.received.filter((map) => map.type === type);
    await this.until(() => of().length > nth);
    return of()[nth];
  }

  /** Vanishes: the connection is cut, nobody listens any more. */
  async vanish(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.peer?.destroy();
    if (server !== undefined) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  async close(): Promise<void> {
    await this.vanish();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #notify(): void {
    const ready = this.#waiters.filter((waiter) => waiter.test());
    this.#waiters = this.#waiters.filter((waiter) => !ready.includes(waiter));
    for (const waiter of ready) waiter.done();
  }
}

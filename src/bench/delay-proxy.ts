/**
 * A proxy that makes a server slower by a known share, to see whether the instrument finds it: each piece of an answer is held back
 * until the time since the first piece has grown by that share. Only for measurements; knows nothing but streams.
 */
import { once } from "node:events";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

export class DelayProxy {
  readonly #target: URL;
  readonly #share: number;
  #server: Server | undefined;

  /** @param share 0.05: five per cent slower */
  constructor(target: string, share: number) {
    this.#target = new URL(target);
    this.#share = share;
  }

  /** Resolves with the address. */
  async listen(): Promise<string> {
    const server = createServer((incoming, response) => {
      const { hostname, port } = this.#target;
      const { method, url, headers } = incoming;
      const outgoing = request({ hostname, port, method, path: url, headers, agent: false }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        response.flushHeaders();
        let first: number | undefined;
        let written = Promise.resolve();
        answer.on("data", (chunk: Buffer) => {
          // by its arrival: what stands in line behind a piece that is held back must not be held back for that, too
          const now = performance.now();
          first ??= now;
          const due = first + (now - first) * (1 + this.#share);
          written = written.then(async () => {
            const wait = due - performance.now();
            if (wait > 0) await delay(wait);
            response.write(chunk);
          });
        });
        answer.on("end", () => void written.then(() => response.end()));
        answer.on("error", () => response.destroy());
      });
      outgoing.on("error", () => response.destroy());
      response.on("close", () => outgoing.destroy());
      incoming.pipe(outgoing);
    });
    this.#server = server;
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

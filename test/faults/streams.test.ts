import type { Socket } from "node:net";
import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";
import { flood } from "./support/flood.ts";
import { post } from "./support/wire.ts";

const bench = testBench();
const SSE = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const PATHS = [
  ["generation route", "/v1/chat/completions"],
  ["pass-through route", "/v1/stream"],
] as const;

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

describe.each(PATHS)("streams, %s", (_name, path) => {
  it("sends headers before there is a body", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(post(path, "{}"));
    const upstream = await engine.connection();
    upstream.write(SSE);
    await client.until("\r\n\r\n");
    expect(client.field("content-type")).toBe("text/event-stream");
    expect(client.body).toBe("");
  });

  it("passes every piece on before the next one exists, in the engine's own pieces", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(post(path, "{}"));
    const upstream = await engine.connection();
    upstream.write(SSE);
    const pieces = Array.from({ length: 20 }, (_, i) => chunk(`data: {"t":${i}}\n\n`));
    for (const piece of pieces) {
      upstream.write(piece);
      await client.until(piece);
    }
    upstream.write("0\r\n\r\n");
    await client.until("0\r\n\r\n");
    expect(client.body).toBe(`${pieces.join("")}0\r\n\r\n`);
  });

  it("keeps 64 streams apart", async () => {
    const engine = await bench.httpEngine((request, response) => {
      let name = "";
      request.on("data", (data) => {
        name += String(data);
      });
      request.on("end", () => {
        response.writeHead(200, { "Content-Type": "text/event-stream" });
        let i = 0;
        const next = (): void => {
          response.write(`data: ${name} ${i++}\n\n`);
          if (i < 30) setImmediate(next);
          else response.end("data: [DONE]\n\n");
        };
        next();
      });
    });
    const { port } = await bench.proxy(engine);
    const texts = await Promise.all(
      Array.from({ length: 64 }, async (_, n) => {
        const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
          method: "POST",
          body: `stream-${n}`,
        });
        return answer.text();
      }),
    );
    texts.forEach((text, n) => {
      const lines = Array.from({ length: 30 }, (_, i) => `data: stream-${n} ${i}\n\n`);
      expect(text).toBe(`${lines.join("")}data: [DONE]\n\n`);
    });
  });

  it("stops reading from the engine while the client does not read, and goes on afterwards", async () => {
    const total = 96 << 20;
    let source: ReturnType<typeof flood> | undefined;
    let begun = (): void => undefined;
    const flooding = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const engine = await bench.httpEngine((request, response) => {
      request.resume();
      response.writeHead(200, { "Content-Length": total });
      source = flood(response, total);
      begun();
    });
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(post(path, "{}"));
    await client.until("\r\n\r\n");
    client.socket.pause();
    await flooding;
    await source?.stalled;
    // What is under way fits into the sockets' buffers; most of it was never asked for.
    expect(source?.sent()).toBeLessThan(total / 2);
    client.socket.removeAllListeners("data");
    const all = count(client.socket, total - client.body.length);
    client.socket.resume();
    await all;
  }, 30_000);
});

it("stops reading an upload while the engine does not read, and goes on afterwards", async () => {
  const engine = await bench.rawEngine();
  const { port } = await bench.proxy(engine);
  const client = await bench.client(port);
  const total = 96 << 20;
  client.write(`POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${total}\r\n\r\n`);
  const upstream = await engine.connection();
  await upstream.until("\r\n\r\n");
  upstream.socket.pause();
  const source = flood(client.socket, total);
  await source.stalled;
  expect(source.sent()).toBeLessThan(total / 2);
  upstream.socket.removeAllListeners("data");
  const all = count(upstream.socket, total - upstream.body.length);
  upstream.socket.resume();
  await all;
}, 30_000);

/** Resolves when that many bytes have come. */
function count(source: Socket, bytes: number): Promise<void> {
  let received = 0;
  return new Promise((resolve) =>
    source.on("data", (data: Buffer) => {
      received += data.length;
      if (received >= bytes) resolve();
    }),
  );
}

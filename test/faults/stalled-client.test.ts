/** A client that stays connected and takes nothing: its machine is gone, or its program hangs. It must not hold a slot for ever, nor others up. */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";
import { flood } from "./support/flood.ts";
import { post } from "./support/wire.ts";

const bench = testBench();
const STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const PATHS = [
  ["generation route", "/v1/chat/completions"],
  ["pass-through route", "/lora-adapters"],
] as const;

/** A chunk of 64 KiB, again and again, for as long as the engine's connection takes it. */
function endless(socket: { write(bytes: Buffer): boolean; destroyed: boolean }): NodeJS.Timeout {
  const data = Buffer.alloc(1 << 16, "x");
  const chunk = Buffer.concat([Buffer.from("10000\r\n"), data, Buffer.from("\r\n")]);
  return setInterval(() => {
    if (!socket.destroyed) socket.write(chunk);
  }, 5);
}

describe.each(PATHS)("a client that takes nothing, %s", (_name, path) => {
  it("is cut off after the time allowed, and the engine's slot is free", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine, { readIdleMs: 300 });
    const stalled = await bench.client(port);
    stalled.write(post(path, {}));
    const upstream = await engine.connection();
    await upstream.until("{}");
    stalled.socket.pause();
    upstream.write(STREAM);
    const source = endless(upstream.socket);
    await upstream.left;
    clearInterval(source);

    const next = await bench.client(port);
    next.write(post(path, {}));
    const second = await engine.connection();
    await second.until("{}");
    second.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await next.until("\r\n\r\nok");
    expect(engine.open).toBe(1);
  });

  it("is left alone when it is only slow", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine, { readIdleMs: 1000 });
    const slow = await bench.client(port);
    slow.write(post(path, {}));
    const upstream = await engine.connection();
    await upstream.until("{}");
    upstream.write(STREAM);
    const source = endless(upstream.socket);
    for (let pause = 0; pause < 12; pause++) {
      slow.socket.pause();
      await delay(100);
      const before = slow.received.length;
      slow.socket.resume();
      await slow.until((received) => received.length > before + (2 << 20));
    }
    clearInterval(source);
    upstream.write("0\r\n\r\n");
    await slow.until((received) => received.endsWith("\r\n0\r\n\r\n"));
  }, 60_000);
});

it("one stalled reader does not hold up 255 others, and gets all of its own later", async () => {
  const total = 4 << 20;
  const engine = await bench.httpEngine((request, response) => {
    request.resume();
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    if (request.url === "/completion?much") {
      flood(response, total);
      return;
    }
    let sent = 0;
    const timer = setInterval(() => {
      response.write(`data: ${request.url} ${sent++}\n\n`);
      if (sent < 20) return;
      clearInterval(timer);
      response.end("data: [DONE]\n\n");
    }, 10);
  });
  const { port } = await bench.proxy(engine);
  const stalled = await bench.client(port);
  stalled.write(post("/completion?much", {}));
  await stalled.until("\r\n\r\n");
  stalled.socket.pause();
  const others = await Promise.all(
    Array.from({ length: 255 }, async (_, i) => {
      const client = await bench.client(port);
      client.write(post(`/completion?n=${i}`, {}));
      await client.until("0\r\n\r\n");
      return client.body;
    }),
  );
  for (const [i, body] of others.entries()) {
    expect(body.split("data: ").length - 1).toBe(21);
    expect(body).toContain(`data: /completion?n=${i} 19\n\n`);
  }
  expect(stalled.received.length).toBeLessThan(total);
  stalled.socket.resume();
  await stalled.until((received) => received.endsWith("0\r\n\r\n"));
  expect(stalled.body.split("x").length - 1).toBe(total);
}, 60_000);

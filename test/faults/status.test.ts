import { expect, it } from "@jest/globals";
import express from "express";
import { LINKED, testBench } from "./support/bench.ts";
import type { FakeEngine } from "./support/fake-engine.ts";
import { post } from "./support/wire.ts";

const bench = testBench();

function ok(): Promise<FakeEngine> {
  return bench.httpEngine((request, response) => {
    request.resume();
    request.on("end", () => response.end("ok"));
  });
}

it("status names engines, arms and what the drafter reports", async () => {
  const engine = await ok();
  const { port } = await bench.proxy(engine);
  const url = `http://127.0.0.1:${port}`;
  await fetch(`${url}/completion`, { method: "POST", body: "{}" });
  await fetch(`${url}/completion`, { method: "POST", body: "{}", headers: { "x-aded": "off" } });
  await fetch(`${url}/tokenize`, { method: "POST", body: "{}" });
  engine.set({ restarts: 2, reason: "killed by signal 9" });
  const answer = await fetch(`${url}/aded/status`);
  expect(answer.headers.get("content-type")).toContain("application/json");
  expect(await answer.json()).toEqual({
    version: "1.2.3",
    uptime_s: expect.any(Number),
    draining: false,
    running: 0,
    arms: { on: 1, off: 1 },
    models: {
      m: {
        ...LINKED,
        state: "ready",
        engine_pid: 4242,
        kind: "patched",
        restarts: 2,
        reason: "killed by signal 9",
      },
    },
  });
});

it("status of a stock engine says that nothing is drafted", async () => {
  const engine = await ok();
  engine.set({ kind: "stock", pid: undefined });
  const { port } = await bench.proxy(engine, { draftingStatus: () => undefined });
  const status = (await (await fetch(`http://127.0.0.1:${port}/aded/status`)).json()) as {
    models: Record<string, unknown>;
  };
  expect(status.models.m).toMatchObject({
    kind: "stock",
    engine_pid: null,
    link: "off",
    tree: null,
    steps: 0,
    tokens: 0,
    tokens_per_step: null,
    draft_us: { p50: null, p99: null },
    matrix: null,
  });
});

it("metrics are in Prometheus' format, without values that were not measured", async () => {
  const { port } = await bench.proxy(await ok());
  const answer = await fetch(`http://127.0.0.1:${port}/aded/metrics`);
  expect(answer.headers.get("content-type")).toMatch(/^text\/plain; version=/);
  const text = await answer.text();
  expect(text).toContain("# TYPE aded_requests_total counter");
  expect(text).toContain('aded_engine_up{model="m"} 1');
  expect(text).toContain('aded_tokens{model="m"} 21');
  expect(text).toContain('aded_exchange_us{model="m",part="draft",quantile="0.99"} 90');
  expect(text).not.toContain('part="link",quantile="0.99"');
  for (const line of text
    .trim()
    .split("\n")
    .filter((each) => each !== "")) {
    expect(line).toMatch(/^(# (HELP|TYPE) |[a-z_]+(\{[^}]*\})? [0-9.e+-]+$)/);
  }
});

it("livez answers always, readyz while an engine is ready", async () => {
  const engine = await ok();
  const { port } = await bench.proxy(engine);
  const status = async (path: string): Promise<number> =>
    (await fetch(`http://127.0.0.1:${port}${path}`)).status;
  expect([await status("/livez"), await status("/readyz")]).toEqual([200, 200]);
  engine.set({ state: "restarting" });
  expect([await status("/livez"), await status("/readyz")]).toEqual([200, 503]);
});

it("serves nothing else under /aded/ but what is mounted there, and hands none of it to the engine", async () => {
  const routes = express.Router();
  routes.get("/dashboard", (_request, response) => {
    response.send("dashboard");
  });
  const { port } = await bench.proxy(await ok(), { routes });
  const url = `http://127.0.0.1:${port}`;
  expect(await (await fetch(`${url}/aded/dashboard`)).text()).toBe("dashboard");
  const missing = await fetch(`${url}/aded/nothing`);
  expect(missing.status).toBe(404);
  expect(await missing.json()).toMatchObject({ error: { type: "not_found_error", code: 404 } });
  expect(missing.headers.get("x-powered-by")).toBeNull();
  expect(await (await fetch(`${url}/Aded/status`)).text()).toBe("ok");
});

it("going down: running streams finish, new requests are refused, then everything is closed", async () => {
  const engine = await bench.rawEngine();
  const { port, proxy } = await bench.proxy(engine);
  const [streaming, idle] = [await bench.client(port), await bench.client(port)];
  idle.write("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await idle.until('"ok"}');
  streaming.write(post("/completion", "{}"));
  const upstream = await engine.connection();
  upstream.write(
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n:ping\n\r\n",
  );
  await streaming.until(":ping");
  const closed = proxy.close(60_000);
  await idle.left;
  // This connection is not idle: a request behind the stream still comes in while the proxy goes down.
  streaming.write("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
  upstream.write("6\r\n:pong\n\r\n0\r\n\r\n");
  await closed;
  await streaming.closed;
  expect(streaming.received).toContain("6\r\n:pong\n\r\n0\r\n\r\nHTTP/1.1 503 Service Unavailable");
  await expect(fetch(`http://127.0.0.1:${port}/livez`)).rejects.toThrow();
});

it("going down: a request behind a stream is refused, not forwarded", async () => {
  const engine = await bench.rawEngine();
  const { port, proxy } = await bench.proxy(engine);
  const client = await bench.client(port);
  client.write(post("/completion", "{}"));
  const upstream = await engine.connection();
  upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
  await client.until("\r\n\r\n");
  const closed = proxy.close(60_000);
  client.write(post("/completion", '{"second":1}'));
  upstream.write("ok");
  await closed;
  await client.closed;
  expect(client.received).toMatch(
    /^HTTP\/1\.1 200 OK[\s\S]*\r\n\r\nokHTTP\/1\.1 503 Service Unavailable[\s\S]*shutting down/,
  );
  expect(upstream.received).not.toContain("second");
});

it("going down: what is not done in time ends with an error", async () => {
  const engine = await bench.rawEngine();
  const { port, proxy } = await bench.proxy(engine);
  const [stream, waiting, plain] = [
    await bench.client(port),
    await bench.client(port),
    await bench.client(port),
  ];
  stream.write(post("/completion", "{}"));
  const streaming = await engine.connection();
  streaming.write(
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n:ping\n\r\n",
  );
  await stream.until(":ping");
  waiting.write(post("/completion", "{}"));
  const silent = await engine.connection();
  await silent.until("{}");
  plain.write(post("/tokenize", "{}"));
  const half = await engine.connection();
  half.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
  await plain.until("half");
  await proxy.close(10);
  await Promise.all([stream.closed, waiting.closed, plain.closed, streaming.left, silent.left, half.left]);
  expect(stream.body).toContain('data: {"error":{"message":"The server is shutting down"');
  expect(stream.body).not.toMatch(/\r\n0\r\n/);
  expect(waiting.head).toMatch(/^HTTP\/1\.1 503 /);
  expect(plain.body).toBe("half");
});

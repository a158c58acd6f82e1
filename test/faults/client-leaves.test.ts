import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";
import type { FakeEngine } from "./support/fake-engine.ts";
import { flood } from "./support/flood.ts";
import { post, type Wire } from "./support/wire.ts";

const bench = testBench();
const SSE = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/** True when the text arrives, false when the connection is left before. */
function arrives(wire: Wire, text: string): Promise<boolean> {
  return Promise.race([wire.until(text).then(() => true), wire.left.then(() => false)]);
}

async function metricsOf(port: number): Promise<string> {
  return (await fetch(`http://127.0.0.1:${port}/aded/metrics`)).text();
}

describe.each([
  ["generation route", "/v1/chat/completions"],
  ["pass-through route", "/embeddings"],
])("a client that leaves, %s", (_name, path) => {
  it("is reported although it does not read what is still under way to it", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(post(path, "{}"));
    const upstream = await engine.connection();
    await upstream.until("{}");
    const total = 96 << 20;
    upstream.write(`HTTP/1.1 200 OK\r\nContent-Length: ${total}\r\n\r\n`);
    await client.until("\r\n\r\n");
    client.socket.pause();
    await flood(upstream.socket, total).stalled;
    client.end();
    await upstream.left;
  });

  it("is reported although it left before the engine could be told of it", async () => {
    const engine = await bench.rawEngine();
    const { port, proxy } = await bench.proxy(engine);
    proxy.server.once("request", (request) => request.socket.destroy());
    const client = await bench.client(port);
    client.write(post(path, "early"));
    await client.left;
    const next = await bench.client(port);
    next.write(post(path, "later"));
    // The first request may have got as far as a connection, which then is closed without another word.
    const first = await engine.connection();
    const served = (await arrives(first, "later")) ? first : await engine.connection();
    await served.until("later");
    expect(first.received).not.toContain("early");
  });

  describe.each(["reset", "destroy", "end"] as const)("by %s", (how) => {
    async function connected(): Promise<{ engine: FakeEngine; port: number; client: Wire; upstream: Wire }> {
      const engine = await bench.rawEngine();
      const { port } = await bench.proxy(engine);
      const client = await bench.client(port);
      client.write(post(path, { prompt: "hi" }));
      const upstream = await engine.connection();
      await upstream.until('"hi"}');
      return { engine, port, client, upstream };
    }

    it("is reported to the engine before headers", async () => {
      const { client, upstream, port } = await connected();
      client[how]();
      await upstream.left;
      expect(await metricsOf(port)).toContain('aded_request_faults_total{kind="client_gone"} 1');
    });

    it("is reported to the engine after headers", async () => {
      const { client, upstream } = await connected();
      upstream.write(SSE);
      await client.until("\r\n\r\n");
      client[how]();
      await upstream.left;
    });

    it("is reported to the engine within the stream", async () => {
      const { client, upstream } = await connected();
      upstream.write(`${SSE}6\r\n:ping\n\r\n`);
      await client.until(":ping");
      client[how]();
      await upstream.left;
    });
  });
});

it.each(["reset", "destroy"] as const)(
  "is reported on a pass-through route while its body is uploading (%s)",
  async (how) => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write("POST /embeddings HTTP/1.1\r\nHost: x.localhost\r\nContent-Length: 1000\r\n\r\nfirst part");
    const upstream = await engine.connection();
    await upstream.until("first part");
    client[how]();
    await upstream.left;
    expect(upstream.body).toBe("first part");
  },
);

it("never reaches the engine on a generation route while its body is uploading", async () => {
  const engine = await bench.rawEngine();
  const { port, proxy } = await bench.proxy(engine);
  const seen = new Promise<void>((resolve) => proxy.server.once("request", () => resolve()));
  const closed = new Promise<void>((resolve) =>
    proxy.server.once("connection", (socket) => socket.once("close", () => resolve())),
  );
  const client = await bench.client(port);
  client.write("POST /completion HTTP/1.1\r\nHost: x.localhost\r\nContent-Length: 1000\r\n\r\nfirst part");
  await seen;
  client.reset();
  await closed;
  expect(engine.open).toBe(0);
});

it("is reported while an earlier answer on the same connection is still running (pipelining)", async () => {
  const engine = await bench.rawEngine();
  const { port } = await bench.proxy(engine);
  const client = await bench.client(port);
  client.write(post("/completion", { prompt: "one" }) + post("/completion", { prompt: "two" }));
  const first = await engine.connection();
  const second = await engine.connection();
  await first.until("one");
  await second.until("two");
  client.reset();
  await Promise.all([first.left, second.left]);
});

it("frees the engine's connection and keeps serving others", async () => {
  const engine = await bench.rawEngine();
  const { port } = await bench.proxy(engine);
  const [leaver, stayer] = [await bench.client(port), await bench.client(port)];
  leaver.write(post("/completion", { prompt: "leaver" }));
  const first = await engine.connection();
  await first.until("leaver");
  stayer.write(post("/completion", { prompt: "stayer" }));
  const second = await engine.connection();
  await second.until("stayer");
  leaver.reset();
  await first.left;
  second.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  await stayer.until("\r\n\r\nok");
  expect(stayer.head).toMatch(/^HTTP\/1\.1 200 OK/);
});

import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";
import type { FakeEngine } from "./support/fake-engine.ts";
import { post, type Wire } from "./support/wire.ts";

const bench = testBench();
const SSE = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

async function metricsOf(port: number): Promise<string> {
  return (await fetch(`http://127.0.0.1:${port}/aded/metrics`)).text();
}

describe.each([
  ["generation route", "/v1/chat/completions"],
  ["pass-through route", "/embeddings"],
])("a client that leaves, %s", (_name, path) => {
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

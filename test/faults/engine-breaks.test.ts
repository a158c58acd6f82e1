import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";
import { FakeEngine } from "./support/fake-engine.ts";
import { post } from "./support/wire.ts";

const bench = testBench();
const BODY = { prompt: "hi" };

function errorOf(body: string): { message: string; type: string; code: unknown } {
  return (JSON.parse(body) as { error: { message: string; type: string; code: unknown } }).error;
}

describe.each([
  ["generation route", "/v1/chat/completions"],
  ["pass-through route", "/lora-adapters"],
])("an engine that breaks, %s", (_name, path) => {
  async function connected(options = {}) {
    const engine = await bench.rawEngine();
    const { port, proxy } = await bench.proxy(engine, options);
    const client = await bench.client(port);
    client.write(post(path, BODY));
    const upstream = await engine.connection();
    await upstream.until('"hi"}');
    return { engine, port, proxy, client, upstream };
  }

  it("gives 502 with an error object when it resets before any header", async () => {
    const { client, upstream } = await connected();
    upstream.reset();
    await client.until("}}");
    expect(client.head).toMatch(/^HTTP\/1\.1 502 /);
    expect(client.field("content-type")).toBe("application/json; charset=utf-8");
    expect(errorOf(client.body)).toMatchObject({ type: "server_error", code: "engine_died" });
    expect(errorOf(client.body).message).toContain("'m'");
  });

  it("gives 502 when it ends in order before any header", async () => {
    const { client, upstream } = await connected();
    upstream.end();
    await client.until("}}");
    expect(client.head).toMatch(/^HTTP\/1\.1 502 /);
    expect(errorOf(client.body).code).toBe("engine_died");
  });

  it("gives 502 when it resets within the headers", async () => {
    const { client, upstream } = await connected();
    upstream.write("HTTP/1.1 200 OK\r\nContent-Ty");
    upstream.reset();
    await client.until("}}");
    expect(client.head).toMatch(/^HTTP\/1\.1 502 /);
  });

  it("gives 502 when its answer is no HTTP", async () => {
    const { client, upstream } = await connected();
    upstream.write("220 mail.example.com ESMTP\r\n\r\n");
    await client.until("}}");
    expect(client.head).toMatch(/^HTTP\/1\.1 502 /);
    await upstream.left;
  });

  it("gives 502 when nobody listens", async () => {
    const { port } = await bench.proxy(await FakeEngine.gone());
    const client = await bench.client(port);
    client.write(post(path, BODY));
    await client.until("}}");
    expect(client.head).toMatch(/^HTTP\/1\.1 502 /);
    expect(errorOf(client.body).code).toBe("engine_unreachable");
  });

  it("gives 504 when it is silent for longer than allowed, and lets go of it", async () => {
    const { client, upstream } = await connected({ engineTimeoutMs: 60 });
    await client.until("}}");
    expect(client.head).toMatch(/^HTTP\/1\.1 504 /);
    expect(errorOf(client.body).code).toBe("engine_timeout");
    await upstream.left;
  });

  it("limits the time until the headers, not the time of the body", async () => {
    const { engine, port, client, upstream } = await connected({ engineTimeoutMs: 60 });
    upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
    await client.until("\r\n\r\n");
    // A second request that runs into the limit tells that the time is over for the first one too.
    const clock = await bench.client(port);
    clock.write(post(path, BODY));
    await (await engine.connection()).until('"hi"}');
    await clock.until("engine_timeout");
    upstream.write("late");
    await client.until("late");
    expect(client.head).toMatch(/^HTTP\/1\.1 200 OK/);
  });

  it.each(["reset", "end"] as const)("cuts a body of known length when it breaks off (%s)", async (how) => {
    const { client, upstream } = await connected();
    upstream.write(
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n0123456789",
    );
    await client.until("0123456789");
    upstream[how]();
    await client.closed;
    expect(client.head).toMatch(/^HTTP\/1\.1 200 OK/);
    expect(client.body).toBe("0123456789");
  });

  it.each(["reset", "end"] as const)("cuts a chunked body without its last chunk (%s)", async (how) => {
    const { client, upstream } = await connected();
    upstream.write(
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    await client.until("hello");
    upstream[how]();
    await client.closed;
    expect(client.body).toBe("5\r\nhello\r\n");
  });

  it.each(["reset", "end"] as const)(
    "ends a broken event stream with an error event and no last chunk (%s)",
    async (how) => {
      const { client, upstream } = await connected();
      upstream.write(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
      );
      upstream.write('10\r\ndata: {"a": 1}\n\n\r\n9\r\ndata: {"b\r\n');
      await client.until('{"b');
      upstream[how]();
      await client.closed;
      expect(client.body).not.toContain("[DONE]");
      expect(client.body).not.toMatch(/\r\n0\r\n/);
      const text = unchunk(client.body);
      // The half event is closed by a blank line; the error is an event of its own.
      const events = text.split("\n\n").filter((event) => event !== "");
      expect(events.slice(0, 2)).toEqual(['data: {"a": 1}', 'data: {"b']);
      expect(events).toHaveLength(3);
      expect(errorOf(events[2].replace(/^data: /, ""))).toMatchObject({
        type: "server_error",
        code: "engine_died",
      });
    },
  );

  it("adds nothing to a compressed event stream", async () => {
    const { client, upstream } = await connected();
    upstream.write(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    await client.until("abc");
    upstream.reset();
    await client.closed;
    expect(client.body).toBe("3\r\nabc\r\n");
  });

  it("takes a chunk of impossible length for a break", async () => {
    const { client, upstream } = await connected();
    upstream.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
    await client.until("ok");
    upstream.write("zzz\r\n");
    await client.closed;
    expect(client.body).toBe("2\r\nok\r\n");
  });

  it("resets a client whose answer has no other end than the connection's", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(post(path, BODY).replace("HTTP/1.1", "HTTP/1.0"));
    const upstream = await engine.connection();
    await upstream.until('"hi"}');
    upstream.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
    await client.until("part");
    expect(client.field("transfer-encoding")).toBeUndefined();
    upstream.reset();
    expect(await client.closed).toBe("reset");
  });

  it("serves the next request on a new connection after a break", async () => {
    const { engine, client, upstream } = await connected();
    upstream.reset();
    await client.until("}}");
    client.received = "";
    client.write(post(path, BODY));
    const second = await engine.connection();
    await second.until('"hi"}');
    second.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await client.until("ok");
    expect(client.head).toMatch(/^HTTP\/1\.1 200 OK/);
  });
});

describe("connections to the engine", () => {
  async function answered(answer: string) {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(post("/completion", BODY));
    const upstream = await engine.connection();
    await upstream.until('"hi"}');
    upstream.write(answer);
    return { engine, client, upstream };
  }

  it("are not used again after a stream: llama-server closes them without saying so", async () => {
    const { engine, client, upstream } = await answered(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    await client.until("0\r\n\r\n");
    await upstream.left;
    client.received = "";
    client.write(post("/completion", BODY));
    const second = await engine.connection();
    await second.until('"hi"}');
    second.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell");
    await client.until("well");
    expect(client.head).toMatch(/^HTTP\/1\.1 200 OK/);
  });

  it("are used again after an answer in one piece", async () => {
    const { engine, client, upstream } = await answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await client.until("ok");
    client.received = "";
    upstream.received = "";
    client.write(post("/completion", BODY));
    await upstream.until('"hi"}');
    upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell");
    await client.until("well");
    expect(engine.open).toBe(1);
  });
});

it("names the error event as Anthropic's clients expect on /v1/messages", async () => {
  const engine = await bench.rawEngine();
  const { port } = await bench.proxy(engine);
  const client = await bench.client(port);
  client.write(post("/v1/messages", BODY));
  const upstream = await engine.connection();
  upstream.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
  await client.until("\r\n\r\n");
  upstream.reset();
  await client.closed;
  const [event, data] = unchunk(client.body).trim().split("\n");
  expect(event).toBe("event: error");
  expect(JSON.parse(data.replace("data: ", ""))).toMatchObject({
    type: "error",
    error: { type: "api_error" },
  });
});

it("counts faults by kind", async () => {
  const { port } = await bench.proxy(await FakeEngine.gone());
  const client = await bench.client(port);
  client.write(post("/completion", BODY));
  await client.until("}}");
  const metrics = await (await fetch(`http://127.0.0.1:${port}/aded/metrics`)).text();
  expect(metrics).toContain('aded_request_faults_total{kind="engine_unreachable"} 1');
  expect(metrics).toContain('aded_requests_total{route="/completion",arm="on",code="502",model="m"} 1');
});

/** The data of complete chunks. */
function unchunk(body: string): string {
  let text = "";
  let rest = body;
  while (rest !== "") {
    const line = rest.indexOf("\r\n");
    const size = Number.parseInt(rest.slice(0, line), 16);
    text += rest.slice(line + 2, line + 2 + size);
    rest = rest.slice(line + 4 + size);
  }
  return text;
}

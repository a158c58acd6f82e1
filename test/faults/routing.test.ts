import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";
import type { FakeEngine } from "./support/fake-engine.ts";
import { post } from "./support/wire.ts";

const bench = testBench();
const LOADING = { error: { code: 503, message: "Loading model", type: "unavailable_error" } };

/** An engine that answers with its model's name. */
function named(model: string): Promise<FakeEngine> {
  return bench.httpEngine(
    (request, response) => {
      request.resume();
      request.on("end", () => response.end(model));
    },
    { model },
  );
}

async function twoModels(): Promise<string> {
  const models = [
    { engine: await named("small"), aliases: ["tiny", "gpt-4"] },
    { engine: await named("large") },
  ];
  const { port } = await bench.proxy([], { models });
  return `http://127.0.0.1:${port}`;
}

function json(body: unknown): RequestInit {
  return { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) };
}

describe("several models", () => {
  it.each([
    [{ model: "large" }, "large"],
    [{ model: "small" }, "small"],
    [{ model: "tiny" }, "small"],
    [{ prompt: "no name" }, "small"],
    [{ model: "" }, "small"],
    [{ messages: [{ model: "small" }], model: "large" }, "large"],
    ["not JSON", "small"],
  ])("%j goes to %s", async (body, model) => {
    const url = await twoModels();
    for (const path of ["/v1/chat/completions", "/v1/embeddings", "/tokenize"]) {
      expect(await (await fetch(`${url}${path}`, json(body))).text()).toBe(model);
    }
  });

  it("an unknown name gets 404 and the names there are", async () => {
    const url = await twoModels();
    for (const answer of [
      await fetch(`${url}/v1/messages`, json({ model: "huge" })),
      await fetch(`${url}/props?model=huge`),
    ]) {
      expect(answer.status).toBe(404);
      expect(await answer.json()).toEqual({
        error: {
          message: "The model 'huge' does not exist; this server has: small, large",
          type: "invalid_request_error",
          code: "model_not_found",
        },
      });
    }
  });

  it("routes without a body go by the query", async () => {
    const url = await twoModels();
    expect(await (await fetch(`${url}/props?x=1&model=large`)).text()).toBe("large");
    expect(await (await fetch(`${url}/props`)).text()).toBe("small");
  });

  it("are listed by the proxy", async () => {
    const url = await twoModels();
    for (const path of ["/v1/models", "/models"]) {
      const list = (await (await fetch(url + path)).json()) as { data: { id: string; aliases: string[] }[] };
      expect(list).toMatchObject({
        object: "list",
        data: [{ id: "small", object: "model" }, { id: "large" }],
      });
      expect(list.data[0].aliases).toEqual(["tiny", "gpt-4"]);
    }
  });

  it("a name given twice is a mistake in the config", async () => {
    const models = [{ engine: await named("a"), aliases: ["b"] }, { engine: await named("b") }];
    await expect(bench.proxy([], { models })).rejects.toMatchObject({ code: "ADED_CONFIG" });
  });
});

describe("one model", () => {
  it("takes any name, and lists itself", async () => {
    const { port } = await bench.proxy(await named("only"));
    const url = `http://127.0.0.1:${port}`;
    expect(await (await fetch(`${url}/v1/chat/completions`, json({ model: "gpt-4" }))).text()).toBe("only");
    expect(await (await fetch(`${url}/v1/models`)).text()).toBe("only");
  });

  it("is found again where it listens after a restart", async () => {
    const [before, after] = [await named("before"), await named("after")];
    const { port } = await bench.proxy(before);
    const url = `http://127.0.0.1:${port}/completion`;
    expect(await (await fetch(url, json({}))).text()).toBe("before");
    Object.assign(before.address, after.address);
    expect(await (await fetch(url, json({}))).text()).toBe("after");
  });

  it("gets a generation route's alias and its encoded form with an arm, other routes without", async () => {
    const { port } = await bench.proxy(await named("m"));
    const arm = async (path: string, init?: RequestInit): Promise<string | null> =>
      (await fetch(`http://127.0.0.1:${port}${path}`, init)).headers.get("x-aded-arm");
    for (const path of [
      "/v1/chat/completions",
      "/chat/completions",
      "/v1/completions",
      "/completions",
      "/completion",
      "/v1/responses",
      "/responses",
      "/v1/messages",
      "/infill",
      "/v1/%63ompletions?x=1",
    ]) {
      expect(await arm(path, json({}))).toBe("on");
    }
    expect(await arm("/v1/completions")).toBeNull();
    expect(await arm("/v1/embeddings", json({}))).toBeNull();
  });
});

describe("an engine that is not ready", () => {
  it.each([
    ["starting", "Loading model", "1"],
    ["restarting", "The engine is being restarted: killed by signal 9", "2"],
    ["stopping", "The engine is stopped: killed by signal 9", null],
    ["stopped", "The engine is stopped: killed by signal 9", null],
    [
      "failed",
      "The engine failed and is not tried again: killed by signal 9; see 'aded doctor' and the log",
      null,
    ],
  ] as const)("gives 503 while it is %s, on every route", async (state, message, retry) => {
    const engine = await named("m");
    const { port } = await bench.proxy(engine);
    engine.set({ state, reason: "killed by signal 9" });
    for (const [path, init] of [
      ["/v1/chat/completions", json({})],
      ["/health", {}],
      ["/v1/models", {}],
    ] as const) {
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, init);
      expect(answer.status).toBe(503);
      expect(answer.headers.get("retry-after")).toBe(retry);
      expect(await answer.json()).toEqual({ error: { code: 503, message, type: "unavailable_error" } });
    }
    engine.set({ state: "ready" });
    expect(await (await fetch(`http://127.0.0.1:${port}/health`)).text()).toBe("m");
  });

  it("answers as llama-server does while it loads", async () => {
    const engine = await named("m");
    const { port } = await bench.proxy(engine);
    engine.set({ state: "starting" });
    const answer = await fetch(`http://127.0.0.1:${port}/health`);
    expect(await answer.json()).toEqual(LOADING);
    expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
  });
});

describe("the body limit", () => {
  const LIMIT = { maxBodyBytes: 1000 };

  it("lets a body of just that size through", async () => {
    const { port } = await bench.proxy(await named("m"), LIMIT);
    const answer = await fetch(`http://127.0.0.1:${port}/completion`, json("x".repeat(1000)));
    expect(answer.status).toBe(200);
  });

  it("refuses an announced body before it is sent", async () => {
    const engine = await named("m");
    const { port } = await bench.proxy(engine, LIMIT);
    const client = await bench.client(port);
    client.write(
      "POST /completion HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
    );
    await client.until("}}");
    expect(client.head).toMatch(/^HTTP\/1\.1 413 /);
    expect(JSON.parse(client.body)).toMatchObject({ error: { code: "request_too_large" } });
    await client.left;
    expect(engine.open).toBe(0);
  });

  it("refuses a chunked body when it has grown too large, and the client gets to read so", async () => {
    const { port } = await bench.proxy(await named("m"), LIMIT);
    const client = await bench.client(port);
    client.write("POST /completion HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    const chunk = `400\r\n${"x".repeat(0x400)}\r\n`;
    client.write(chunk);
    await client.until("}}");
    expect(client.head).toMatch(/^HTTP\/1\.1 413 /);
    // What the client still sends is read, so that no reset can overtake the answer.
    client.write(chunk.repeat(100));
    client.write("0\r\n\r\n");
    expect(await client.closed).toBe("end");
  });

  it("does not hold for routes that are piped through", async () => {
    const { port } = await bench.proxy(await named("m"), LIMIT);
    const answer = await fetch(`http://127.0.0.1:${port}/v1/audio/transcriptions`, json("x".repeat(5000)));
    expect(answer.status).toBe(200);
  });

  it("leaves the connection open after refusing a small request", async () => {
    const engine = await named("m");
    const { port } = await bench.proxy(engine);
    engine.set({ state: "starting" });
    const client = await bench.client(port);
    for (let i = 0; i < 3; i++) {
      client.received = "";
      client.write(post("/completion", { prompt: "x" }));
      await client.until("}}");
      expect(client.head).toMatch(/^HTTP\/1\.1 503 /);
    }
  });
});

it("cuts a client that stalls within its body or its headers", async () => {
  const { port } = await bench.proxy(await named("m"), { uploadIdleMs: 50 });
  for (const path of ["/completion", "/tokenize"]) {
    const client = await bench.client(port);
    client.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome`);
    await client.left;
    expect(client.received).not.toContain("200 OK");
  }
  const slow = await bench.client(port);
  slow.write("POST /completion HTTP/1.1\r\nHost: loc");
  await slow.left;
  expect(slow.received).toMatch(/^HTTP\/1\.1 408 /);
});

it("does not cut a client that waits for a slow answer", async () => {
  const engine = await bench.rawEngine();
  const { port } = await bench.proxy(engine, { uploadIdleMs: 50 });
  const [waiting, stalled] = [await bench.client(port), await bench.client(port)];
  waiting.write(post("/completion", "{}"));
  const upstream = await engine.connection();
  await upstream.until("{}");
  // The stalled one is cut: by then the idle time is over for the waiting one as well.
  stalled.write("POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome");
  await stalled.left;
  upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  await waiting.until("\r\n\r\nok");
  expect(waiting.head).toMatch(/^HTTP\/1\.1 200 OK/);
});

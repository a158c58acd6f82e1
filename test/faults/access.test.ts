import { createHash } from "node:crypto";
import { request } from "node:http";
import { describe, expect, it } from "@jest/globals";
import { silentLog } from "../../src/log.ts";
import { createProxy, type ProxyOptions } from "../../src/proxy/app.ts";
import { LINKED, testBench } from "./support/bench.ts";
import { FakeEngine } from "./support/fake-engine.ts";

const bench = testBench();

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

function send(
  port: number,
  path: string,
  headers: Record<string, string> = {},
  method = "POST",
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ port, host: "127.0.0.1", path, method, headers }, (incoming) => {
      let body = "";
      incoming.on("data", (chunk) => {
        body += String(chunk);
      });
      incoming.on("end", () =>
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body }),
      );
    });
    outgoing.on("error", reject);
    outgoing.end(method === "POST" ? "{}" : undefined);
  });
}

/** An engine that answers with the headers it got, and a proxy before it. */
async function echo(options: Partial<ProxyOptions> = {}): Promise<{ port: number; engine: FakeEngine }> {
  const engine = await bench.httpEngine((incoming, response) => {
    incoming.resume();
    incoming.on("end", () => response.end(JSON.stringify(incoming.headers)));
  });
  const { port } = await bench.proxy(engine, options);
  return { port, engine };
}

describe("keys", () => {
  const digest = createHash("sha256").update("second").digest("hex");
  const options = { apiKeys: ["first", `sha256:${digest}`] };

  it.each([
    ["none", {}],
    ["a wrong one", { Authorization: "Bearer nope" }],
    ["a prefix of one", { Authorization: "Bearer firs" }],
    ["the digest instead of the key", { "x-api-key": digest }],
    ["another scheme", { Authorization: "Basic first" }],
  ])("a request with %s gets llama-server's 401", async (_name, headers) => {
    const { port } = await echo(options);
    for (const path of ["/v1/chat/completions", "/props", "/aded/status", "/aded/metrics", "/%68ealth"]) {
      const answer = await send(port, path, headers);
      expect(answer.status).toBe(401);
      expect(JSON.parse(answer.body)).toEqual({
        error: { message: "Invalid API Key", type: "authentication_error", code: 401 },
      });
    }
  });

  it.each([
    ["Authorization", "Bearer first"],
    ["authorization", "bearer second"],
    ["X-Api-Key", "second"],
  ])("%s: %s lets a request in", async (name, value) => {
    const { port } = await echo(options);
    for (const path of ["/v1/chat/completions", "/props"]) {
      expect((await send(port, path, { [name]: value })).status).toBe(200);
    }
    expect((await send(port, "/aded/status", { [name]: value }, "GET")).status).toBe(200);
  });

  it("each key has a learning scope of its own, which the client cannot choose", async () => {
    const { port } = await echo(options);
    const scopes = new Set<string>();
    for (const key of ["first", "second"]) {
      for (const path of ["/v1/chat/completions", "/props"]) {
        const answer = await send(port, path, { "x-api-key": key, "x-aded-scope": "theirs" });
        const scope = (JSON.parse(answer.body) as Record<string, string>)["x-aded-scope"];
        expect(scope).toBe(createHash("sha256").update(key).digest("hex").slice(0, 16));
        scopes.add(scope);
      }
    }
    expect(scopes.size).toBe(2);
  });

  it("health, readiness, the web page and preflights need none", async () => {
    const { port } = await echo(options);
    for (const path of ["/health", "/v1/health", "/livez", "/readyz", "/", "/_app/a.js", "/favicon.ico"]) {
      expect((await send(port, path, {}, "GET")).status).toBe(200);
    }
    expect((await send(port, "/v1/chat/completions", {}, "OPTIONS")).status).toBe(200);
    expect((await send(port, "/health", {}, "POST")).status).toBe(401);
    expect((await send(port, "/slots", {}, "GET")).status).toBe(401);
  });

  it("without keys nobody needs one, and there is no scope", async () => {
    const { port } = await echo();
    const answer = await send(port, "/v1/chat/completions", { "x-aded-scope": "theirs" });
    expect(JSON.parse(answer.body)).not.toHaveProperty("x-aded-scope");
  });

  it("an empty key is refused at start", () => {
    const start = (): unknown => createProxy({ models: [], version: "1", log: silentLog(), apiKeys: [" "] });
    expect(start).toThrow(expect.objectContaining({ code: "ADED_CONFIG" }));
  });

  it("listening beyond this machine without a key is refused", async () => {
    const proxy = createProxy({
      models: [{ engine: await FakeEngine.gone() }],
      version: "1",
      log: silentLog(),
    });
    await expect(proxy.listen({ host: "0.0.0.0", port: 0 })).rejects.toMatchObject({ code: "ADED_CONFIG" });
    expect(proxy.server.listening).toBe(false);
  });

  it("a taken port is named", async () => {
    const { port } = await echo();
    const proxy = createProxy({
      models: [{ engine: await FakeEngine.gone() }],
      version: "1",
      log: silentLog(),
    });
    await expect(proxy.listen({ port })).rejects.toMatchObject({ code: "ADED_PORT_TAKEN" });
  });
});

describe("host and origin", () => {
  it.each(["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "a b"])(
    "the host '%s' is refused",
    async (host) => {
      const { port } = await echo();
      for (const path of ["/v1/chat/completions", "/props", "/aded/status", "/livez"]) {
        const answer = await send(port, path, { Host: host });
        expect(answer.status).toBe(403);
        expect(JSON.parse(answer.body)).toMatchObject({ error: { code: "host_not_allowed" } });
      }
    },
  );

  it.each([
    "localhost",
    "LOCALHOST:1234",
    "127.0.0.1:8080",
    "[::1]:8080",
    "app.localhost",
    "192.168.1.7:8080",
    "box.lan",
    "a.b.example.com",
  ])("the host '%s' is served", async (host) => {
    const { port } = await echo({ allowedHosts: ["Box.lan", "*.example.com"] });
    expect((await send(port, "/v1/chat/completions", { Host: host })).status).toBe(200);
  });

  it.each([
    "https://evil.example",
    "null",
    "http://localhost.evil.example",
    "http://203.0.113.5",
    "nonsense",
  ])("pages of the origin '%s' are refused", async (origin) => {
    const { port } = await echo();
    for (const path of ["/v1/chat/completions", "/props", "/aded/status"]) {
      const answer = await send(port, path, { Origin: origin });
      expect(answer.status).toBe(403);
      expect(JSON.parse(answer.body)).toMatchObject({ error: { code: "origin_not_allowed" } });
    }
  });

  it.each([
    "http://localhost:5173",
    "http://127.0.0.1",
    "http://[::1]:3000",
    "http://10.0.0.2:8080",
    "https://chat.example.com",
    "app://obsidian.md",
  ])("pages of the origin '%s' are served", async (origin) => {
    const { port } = await echo({ allowedOrigins: ["https://Chat.example.com"] });
    expect((await send(port, "/props", { Origin: origin, Host: "10.0.0.2:8080" })).status).toBe(200);
  });
});

describe("x-aded", () => {
  it.each([
    [undefined, "on", undefined],
    ["on", "on", undefined],
    [" ON ", "on", undefined],
    ["off", "off", "off"],
    ["Off", "off", "off"],
  ])("%s gives the arm %s, and the engine is told %s", async (value, arm, told) => {
    const { port } = await echo();
    const answer = await send(port, "/v1/chat/completions", value === undefined ? {} : { "X-Aded": value });
    expect(answer.headers["x-aded-arm"]).toBe(arm);
    expect((JSON.parse(answer.body) as Record<string, string>)["x-aded"]).toBe(told);
  });

  it.each(["yes", "", "on, off", "0"])("'%s' is a mistake", async (value) => {
    const { port } = await echo();
    const answer = await send(port, "/v1/chat/completions", { "x-aded": value });
    expect(answer.status).toBe(400);
    expect(JSON.parse(answer.body)).toMatchObject({
      error: {
        type: "invalid_request_error",
        code: "invalid_x_aded",
        message: expect.stringContaining(`'${value}'`),
      },
    });
  });

  it("the arm is off where no drafts are possible", async () => {
    const { port, engine } = await echo();
    engine.set({ kind: "stock" });
    expect((await send(port, "/completion", { "x-aded": "on" })).headers["x-aded-arm"]).toBe("off");
    const unlinked = await echo({ draftingStatus: () => ({ ...LINKED, link: "connecting" }) });
    expect((await send(unlinked.port, "/completion")).headers["x-aded-arm"]).toBe("off");
    const early = await send(unlinked.port, "/completion");
    expect(JSON.parse(early.body)).toHaveProperty("x-aded", "off");
    const without = await echo({ draftingStatus: undefined });
    expect(JSON.parse((await send(without.port, "/completion")).body)).not.toHaveProperty("x-aded");
    expect((await send(without.port, "/completion")).headers["x-aded-arm"]).toBe("off");
    const quick = await echo({ draftingStatus: undefined, linkUp: () => true });
    expect((await send(quick.port, "/completion")).headers["x-aded-arm"]).toBe("on");
  });

  it("is no business of other routes", async () => {
    const { port } = await echo();
    const answer = await send(port, "/tokenize", { "x-aded": "maybe" });
    expect(answer.status).toBe(200);
    expect(answer.headers["x-aded-arm"]).toBeUndefined();
    expect(JSON.parse(answer.body)).toHaveProperty("x-aded", "maybe");
  });
});

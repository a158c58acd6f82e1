/** What SECURITY.md promises of the proxy, each as a test. */
import { createHash } from "node:crypto";
import { Writable } from "node:stream";
import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { pino } from "pino";
import { KeyRing } from "../../src/proxy/auth.ts";
import { testBench } from "./support/bench.ts";
import { post } from "./support/wire.ts";

const bench = testBench();
const KEY = "sk-a-key-that-nobody-guesses";

/** An engine that notes every request line and header block it gets. */
async function guarded(
  options: Parameters<typeof bench.proxy>[1] = {},
): Promise<{ port: number; seen: string[] }> {
  const seen: string[] = [];
  const engine = await bench.httpEngine((incoming, response) => {
    seen.push(`${incoming.method} ${incoming.url}\n${incoming.rawHeaders.join("\n")}`);
    incoming.resume();
    incoming.on("end", () => response.end("{}"));
  });
  const { port } = await bench.proxy(engine, { apiKeys: [KEY], ...options });
  return { port, seen };
}

async function answerTo(port: number, bytes: string): Promise<string> {
  const client = await bench.client(port);
  client.write(bytes);
  await client.until("\r\n\r\n");
  const { head } = client;
  client.destroy();
  return head;
}

describe("no engine route is reached around the keys", () => {
  const spellings = [
    "/slots",
    "//slots",
    "/./slots",
    "/x/../slots",
    "/%73lots",
    "/slots/",
    "/slots;x=1",
    "/;/slots",
    "/SLOTS",
    "/slots%00",
    "/%2fslots",
    "/%2e/slots",
    "/health/../slots",
    "/health/%2e%2e/slots",
    "/health;/slots",
    "/health/",
    "/HEALTH",
    "//health",
    "/health%3f",
    "/v1/health/",
    "/_app/../slots",
    "/_app/%2e%2e/slots",
    "/_app/..;/slots",
    "/_app/..%2fslots",
    "/_app/%2e%2e%2fslots",
    "/index.html/../props",
    "/favicon/../props",
    "/livez/../slots",
    "/readyz/x",
    "/aded/../slots",
    "/aded/%2e%2e/slots",
    "/aded/status",
    "/aded/metrics",
    "/bundle.x/../../props",
    "/?/../slots#",
    "/props",
    "/lora-adapters",
    "/v1/models",
    "/metrics",
    "/tools",
    "/cors-proxy",
    "http://127.0.0.1/slots",
    "http://127.0.0.1//slots",
  ];
  /** They are the web page's: "/" with a query that means nothing. */
  const open = new Set(["/?/../slots#"]);

  it.each(["GET", "POST", "PUT", "DELETE", "PATCH"])("%s, however the path is written", async (method) => {
    const { port, seen } = await guarded();
    for (const path of spellings) {
      const head = await answerTo(
        port,
        `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n`,
      );
      if (method === "GET" && open.has(path)) expect(head).toMatch(/^HTTP\/1\.1 200/);
      else expect([path, head.split("\r\n")[0]]).toEqual([path, expect.stringMatching(/^HTTP\/1\.1 40[01]/)]);
    }
    expect(
      seen.filter((request) => /slots|props|lora/i.test(request.split("\n")[0].replace("/?/../slots#", ""))),
    ).toEqual([]);
  });

  it("nor by any path that chance makes of such pieces", async () => {
    const { port, seen } = await guarded();
    const piece = fc.constantFrom(
      "/",
      "//",
      ".",
      "..",
      "%2e",
      "%2F",
      ";",
      "?",
      "health",
      "slots",
      "_app",
      "aded",
      "%",
      "\\",
      "x",
      "%00",
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
        const path = `/${pieces.join("")}`;
        await answerTo(port, `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`);
        // whatever came through names one of the public files, undecoded and without a step upwards
        for (const request of seen.splice(0)) {
          const [, target] = request.split("\n")[0].split(" ");
          expect(target.split("?")[0]).toMatch(/^\/($|health$|_app\/(?!.*(\.\.|%)))/);
        }
      }),
      { numRuns: 300, seed: 1 },
    );
  });
});

describe("a key", () => {
  it.each([
    ["Authorization", `Bearer ${KEY}`],
    ["x-api-key", KEY],
  ])("in %s is not handed on to the engine", async (name, value) => {
    const { port, seen } = await guarded();
    for (const path of ["/v1/chat/completions", "/props"]) {
      expect(await answerTo(port, post(path, {}, `${name}: ${value}\r\n`))).toContain("200 OK");
    }
    expect(seen).toHaveLength(2);
    expect(seen.join("\n")).not.toContain(KEY);
    expect(seen.join("\n").toLowerCase()).not.toContain("authorization");
  });

  it("of the engine's own takes its place", async () => {
    const seen: (string | undefined)[] = [];
    const engine = await bench.httpEngine((incoming, response) => {
      seen.push(incoming.headers.authorization);
      response.end("{}");
    });
    Object.assign(engine, { authorization: "Bearer engines-own" });
    const { port } = await bench.proxy(engine, { apiKeys: [KEY] });
    await answerTo(port, post("/v1/completions", {}, `Authorization: Bearer ${KEY}\r\n`));
    await answerTo(port, post("/props", {}, `Authorization: Bearer ${KEY}\r\n`));
    expect(seen).toEqual(["Bearer engines-own", "Bearer engines-own"]);
  });

  it("meant for the engine goes through where the proxy has none", async () => {
    const { port, seen } = await guarded({ apiKeys: [] });
    await answerTo(port, post("/v1/completions", {}, "Authorization: Bearer engines-own\r\n"));
    expect(seen[0]).toContain("Bearer engines-own");
  });

  it("is kept as its digest only", () => {
    const ring = new KeyRing([KEY, `sha256:${createHash("sha256").update("other").digest("hex")}`]);
    const request = (key: string): never => ({ headers: { "x-api-key": key } }) as never;
    expect(ring.scopeOf(request(KEY))).toHaveLength(16);
    expect(ring.scopeOf(request("other"))).toHaveLength(16);
    expect(ring.scopeOf(request(`${KEY}x`))).toBeUndefined();
    expect(JSON.stringify(ring)).not.toContain(KEY);
  });
});

it("nothing that a client sends makes a log line of its own, and no key stands in the log", async () => {
  const lines: string[] = [];
  const sink = new Writable({
    write(chunk, _coding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const { port } = await guarded({ log: pino({ level: "trace" }, sink) as never });
  const forged = '"}\n{"level":60,"msg":"forged"}\r\n\u001b[31m';
  for (const path of ["/v1/chat/completions", "/props", `/${encodeURIComponent(forged)}`]) {
    await answerTo(
      port,
      post(path, { model: forged, messages: [] }, `x-api-key: ${KEY}\r\nx-request-id: a\tb\r\n`),
    );
    await answerTo(port, post(path, { model: forged }, "x-api-key: wrong-key\r\n"));
  }
  const written = lines.join("").split("\n").filter(Boolean);
  for (const line of written) expect((JSON.parse(line) as { msg: string }).msg).not.toBe("forged");
  expect(lines.join("")).not.toContain(KEY);
  expect(lines.join("")).not.toContain("wrong-key");
});

it("no page of another site is told that it may read anything", async () => {
  const { port, seen } = await guarded({ apiKeys: [] });
  for (const method of ["OPTIONS", "POST", "GET"]) {
    const head = await answerTo(
      port,
      `${method} /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\nContent-Length: 0\r\n\r\n`,
    );
    expect(head).toMatch(/^HTTP\/1\.1 403/);
    expect(head.toLowerCase()).not.toContain("access-control-allow");
  }
  expect(seen).toEqual([]);
});

it.each([
  ["a negative length", "Content-Length: -1\r\n"],
  ["a length past every number", "Content-Length: 99999999999999999999999\r\n"],
  ["a length in hexadecimal", "Content-Length: 0x10\r\n"],
  ["two lengths", "Content-Length: 1\r\nContent-Length: 2\r\n"],
  ["a length and chunks", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"],
])("%s never reaches an engine", async (_name, fields) => {
  const { port, seen } = await guarded({ apiKeys: [] });
  for (const path of ["/v1/completions", "/props"]) {
    const head = await answerTo(port, `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${fields}\r\nabcd`);
    expect(head).toMatch(/^HTTP\/1\.1 4(00|13)/);
  }
  expect(seen).toEqual([]);
});

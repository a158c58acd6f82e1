import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { testBench } from "./support/bench.ts";
import type { FakeEngine } from "./support/fake-engine.ts";
import type { Wire } from "./support/wire.ts";

const bench = testBench();
const PATHS = [
  ["generation route", "/v1/chat/completions"],
  ["pass-through route", "/v1/audio/transcriptions"],
] as const;

/** Fields that belong to one connection, or that frame a buffered body anew. */
const PER_HOP = new Set([
  "connection",
  "keep-alive",
  "content-length",
  "transfer-encoding",
  "x-aded-arm",
  "x-request-id",
]);

function endToEnd(fields: [string, string][]): [string, string][] {
  return fields.filter(([name]) => !PER_HOP.has(name.toLowerCase()));
}

/** Sorted by name in lower case; fields of the same name keep their order. */
function grouped(fields: [string, string][]): [string, string][] {
  return [...fields].sort(([a], [b]) =>
    a.toLowerCase() < b.toLowerCase() ? -1 : a.toLowerCase() > b.toLowerCase() ? 1 : 0,
  );
}

describe.each(PATHS)("%s: bytes stay as they are", (_name, path) => {
  async function connected(engineOptions = {}): Promise<{ engine: FakeEngine; port: number; client: Wire }> {
    const engine = await bench.rawEngine(engineOptions);
    const { port } = await bench.proxy(engine);
    return { engine, port, client: await bench.client(port) };
  }

  it("request line, header names, values, repetitions and body", async () => {
    const { engine, client } = await connected();
    const fields: [string, string][] = [
      ["Host", "LocalHost:8080"],
      ["X-Odd_Name.~!", 'a  b\tc; d="e,f"'],
      ["ACCEPT", "*/*"],
      ["x-Twice", "one"],
      ["Content-Type", "application/json; charset=UTF-8"],
      ["X-Twice", "two"],
      ["X-Empty", ""],
      ["X-Latin", "gr\xfc\xdfe"],
      ["Cookie", "a=1; b=2"],
      ["Accept-Encoding", "gzip, br;q=0.5"],
      ["Authorization", "Bearer sk-123"],
      ["User-Agent", "Test/1.0 (x)"],
    ];
    const target = `${path}?q=%20a//b&c=d?e[]=%zz&model=x`;
    const body = '{ "model" : "x",\n\t"prompt":"\u00e9\\u0000" }';
    const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("");
    client.write(`POST ${target} HTTP/1.1\r\n${head}Content-Length: ${body.length}\r\n\r\n${body}`);
    const upstream = await engine.connection();
    await upstream.until(body);
    expect(upstream.head.split("\r\n")[0]).toBe(`POST ${target} HTTP/1.1`);
    const arrived = endToEnd(upstream.fields).map(([name, value]): [string, string] => [
      name.toLowerCase() === "host" ? "Host" : name,
      value,
    ]);
    // Each name keeps the letters of its first occurrence; the values keep their order.
    expect(grouped(arrived).map(([name, value]) => `${name.toLowerCase()}: ${value}`)).toEqual(
      grouped(fields).map(([name, value]) => `${name.toLowerCase()}: ${value}`),
    );
    expect(arrived.map(([name]) => name)).toEqual(
      expect.arrayContaining(["X-Odd_Name.~!", "ACCEPT", "X-Latin"]),
    );
    expect(upstream.field("content-length")).toBe(String(body.length));
    expect(upstream.body).toBe(body);
  });

  it("status line, header order, letter case, repetitions and body of the answer", async () => {
    const { engine, client } = await connected();
    client.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}`);
    const upstream = await engine.connection();
    await upstream.until("{}");
    const fields: [string, string][] = [
      ["server", "llama.cpp"],
      ["SET-COOKIE", "a=1; Path=/"],
      ["X-Odd", 'gr\xfc\xdfe, "x"'],
      ["Set-Cookie", "b=2; Path=/"],
      ["Content-Type", "application/json"],
      ["Access-Control-Allow-Origin", ""],
      ["Date", "Thu, 01 Jan 1970 00:00:00 GMT"],
    ];
    const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("");
    upstream.write(
      `HTTP/1.1 299 Oddly  Fine\r\n${head}Content-Length: 5\r\nKeep-Alive: timeout=5, max=100\r\n\r\n\0\xff\r\n!`,
    );
    await client.until("\0\xff\r\n!");
    expect(client.head.split("\r\n")[0]).toBe("HTTP/1.1 299 Oddly  Fine");
    expect(endToEnd(client.fields)).toEqual(fields);
    expect(client.body).toBe("\0\xff\r\n!");
  });

  it("does not add a Date that the engine did not send", async () => {
    const { engine, client } = await connected();
    client.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}`);
    const upstream = await engine.connection();
    upstream.write("HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n");
    await client.until("\r\n\r\n");
    expect(endToEnd(client.fields)).toEqual([["X-A", "b"]]);
  });

  it("over a Unix socket", async () => {
    const { engine, client } = await connected({ unix: true });
    client.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}`);
    const upstream = await engine.connection();
    await upstream.until("{}");
    upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    await client.until("\r\n\r\nhi");
    expect(upstream.head.split("\r\n")[0]).toBe(`POST ${path} HTTP/1.1`);
  });

  it("passes a compressed body on as it came", async () => {
    const packed = gzipSync(JSON.stringify({ text: "x".repeat(5000) }));
    const engine = await bench.httpEngine((_request, response) => {
      response.writeHead(200, { "Content-Encoding": "gzip", "Content-Length": packed.length });
      response.end(packed);
    });
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(
      `POST ${path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}`,
    );
    await client.until((received) => received.length - received.indexOf("\r\n\r\n") - 4 === packed.length);
    expect(client.field("content-encoding")).toBe("gzip");
    expect(Buffer.from(client.body, "latin1").equals(packed)).toBe(true);
  });

  it("passes trailers on", async () => {
    const { engine, client } = await connected();
    client.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nContent-Length: 2\r\n\r\n{}`);
    const upstream = await engine.connection();
    await upstream.until("{}");
    expect(upstream.field("te")).toBe("trailers");
    upstream.write(
      "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    await client.until("X-Sum: 42\r\n\r\n");
    expect(client.body).toBe("2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n");
  });

  it("passes early hints on", async () => {
    const { engine, client } = await connected();
    client.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}`);
    const upstream = await engine.connection();
    await upstream.until("{}");
    upstream.write(
      "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    await client.until("\r\n\r\nok");
    expect(client.received).toMatch(
      /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 200 OK\r\n/i,
    );
  });

  it("invites a body that waits for 100 Continue", async () => {
    const { engine, client } = await connected();
    client.write(
      `POST ${path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`,
    );
    await client.until("HTTP/1.1 100 Continue\r\n\r\n");
    client.received = "";
    client.write("body");
    const upstream = await engine.connection();
    await upstream.until("body");
    expect(upstream.field("expect")).toBeUndefined();
    upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await client.until("\r\n\r\nok");
    expect(client.head).toMatch(/^HTTP\/1\.1 200 OK/);
  });

  it("any body, in any pieces, both ways", async () => {
    const engine = await bench.httpEngine((request, response) => {
      const hash = createHash("sha256");
      const pieces: Buffer[] = [];
      request.on("data", (chunk: Buffer) => {
        hash.update(chunk);
        pieces.push(chunk);
      });
      request.on("end", () => {
        response.setHeader("X-Digest", hash.digest("hex"));
        for (const piece of pieces) response.write(piece);
        response.end();
      });
    });
    const { port } = await bench.proxy(engine);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 3000 }), { maxLength: 6 }),
        fc.boolean(),
        async (parts, chunked) => {
          const body = Buffer.concat(parts);
          const init = chunked ? { body: ReadableStream.from(parts), duplex: "half" as const } : { body };
          const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", ...init });
          const back = Buffer.from(await answer.arrayBuffer());
          expect(back.equals(body)).toBe(true);
          expect(answer.headers.get("x-digest")).toBe(createHash("sha256").update(body).digest("hex"));
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("other methods and forms", () => {
  it.each([
    ["HEAD", "/props", "Content-Length: 1234\r\n"],
    ["HEAD", "/props", "Transfer-Encoding: chunked\r\n"],
  ])("%s %s keeps the framing fields and has no body (%#)", async (method, path, framing) => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    const upstream = await engine.connection();
    await upstream.until("\r\n\r\n");
    expect(upstream.head.split("\r\n")[0]).toBe(`${method} ${path} HTTP/1.1`);
    upstream.write(`HTTP/1.1 200 OK\r\n${framing}\r\n`);
    await client.until("\r\n\r\n");
    expect(client.head).toContain(framing.trim());
    // The next answer on the connection comes right after: there was no body.
    const before = client.received.length;
    client.write("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await client.until((received) => received.slice(before).startsWith("HTTP/1.1 200"));
    expect(client.received.slice(before)).toMatch(/^HTTP\/1\.1 200 OK/);
  });

  it.each(["/a//b/../c/./d", "//double", "/%2e%2e/%41", "/a?b?c#d", "/%e4?%FC=%", "*"])(
    "the target %s stays as it is",
    async (target) => {
      const engine = await bench.rawEngine();
      const { port } = await bench.proxy(engine);
      const client = await bench.client(port);
      client.write(`OPTIONS ${target} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
      const upstream = await engine.connection();
      await upstream.until("\r\n\r\n");
      expect(upstream.head.split("\r\n")[0]).toBe(`OPTIONS ${target} HTTP/1.1`);
      expect(upstream.field("content-length")).toBeUndefined();
      expect(upstream.field("transfer-encoding")).toBeUndefined();
    },
  );

  it("a request that expects 100 Continue but has no body is answered", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write("GET //props HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n");
    const upstream = await engine.connection();
    await upstream.until("\r\n\r\n");
    expect(upstream.head).toMatch(/^GET \/\/props HTTP\/1\.1\r\n/);
    expect(upstream.field("expect")).toBeUndefined();
    upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await client.until("\r\n\r\nok");
    expect(client.received).toContain("HTTP/1.1 200 OK\r\n");
  });

  it("request trailers pass on a streamed upload", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(
      "PUT /upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    const upstream = await engine.connection();
    await upstream.until("0\r\nX-Sum: 7\r\n\r\n");
    expect(upstream.body).toBe("3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n");
  });

  it("an upgrade to another protocol than WebSocket is ignored and the request answered", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(
      "POST /completion HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 2\r\n\r\n{}",
    );
    const upstream = await engine.connection();
    await upstream.until("{}");
    expect(upstream.fields.map(([name]) => name.toLowerCase())).toEqual(["host", "content-length"]);
    upstream.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    await client.until("\r\n\r\nok");
    // and the connection goes on
    client.received = "";
    client.write("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await client.until('"ok"');
    expect(client.head).toMatch(/^HTTP\/1\.1 200 OK/);
  });
});

import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";
import { post } from "./support/wire.ts";

const bench = testBench();

describe.each(["/v1/chat/completions", "/tokenize"])("ambiguous requests to %s are refused", (path) => {
  const head = `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n`;

  it.each([
    ["both framings", `${head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    [
      "both framings, the other way round",
      `${head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n`,
    ],
    ["two lengths", `${head}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde`],
    ["two equal lengths", `${head}Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd`],
    ["a list of lengths", `${head}Content-Length: 4, 4\r\n\r\nabcd`],
    ["a negative length", `${head}Content-Length: -1\r\n\r\n`],
    ["a length with a sign", `${head}Content-Length: +4\r\n\r\nabcd`],
    ["a length in hexadecimal", `${head}Content-Length: 0x4\r\n\r\nabcd`],
    ["chunked not last", `${head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`],
    ["a coding that is not chunked", `${head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
    ["a space before the colon", `${head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`],
    ["a folded header", `${head}X-A: b\r\n c\r\nContent-Length: 4\r\n\r\nabcd`],
    ["a bare line feed in the head", `${head}X-A: b\nContent-Length: 4\r\n\r\nabcd`],
    ["a bare carriage return in the head", `${head}X-A: b\rContent-Length: 4\r\n\r\nabcd`],
    ["a NUL in the head", `${head}X-A: b\0c\r\nContent-Length: 4\r\n\r\nabcd`],
    ["two hosts", `${head}Host: localhost\r\nContent-Length: 4\r\n\r\nabcd`],
    ["no host", `POST ${path} HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd`],
    ["a chunk size that is none", `${head}Transfer-Encoding: chunked\r\n\r\nzz\r\nabcd\r\n0\r\n\r\n`],
    ["a chunk longer than announced", `${head}Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n`],
  ])("%s", async (_name, bytes) => {
    const reached: string[] = [];
    const engine = await bench.httpEngine((request, response) => {
      let body = "";
      request.on("data", (chunk) => {
        body += String(chunk);
      });
      request.on("end", () => {
        reached.push(body);
        response.end("reached");
      });
    });
    const { port } = await bench.proxy(engine);
    const client = await bench.client(port);
    client.write(bytes);
    await client.until("\r\n\r\n");
    expect(client.received).toMatch(/^HTTP\/1\.1 400 /);
    expect(client.received).not.toContain("reached");
    expect(reached).toEqual([]);
  });
});

it("gives a header block over the limit 431", async () => {
  const engine = await bench.rawEngine();
  const { port } = await bench.proxy(engine);
  const client = await bench.client(port);
  client.write(`GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Big: ${"x".repeat(70_000)}\r\n\r\n`);
  await client.left;
  expect(client.received).toMatch(/^HTTP\/1\.1 431 /);
});

it("gives a body exactly the bytes it announced, and takes what follows for a new request", async () => {
  const seen: string[] = [];
  const engine = await bench.httpEngine((request, response) => {
    let body = "";
    request.on("data", (chunk) => {
      body += String(chunk);
    });
    request.on("end", () => {
      seen.push(`${request.method} ${request.url} ${body}`);
      response.end(`answer ${seen.length}`);
    });
  });
  const { port } = await bench.proxy(engine);
  const client = await bench.client(port);
  // With DELETE, http-proxy would drop the chunked framing: its body would become a request of its own.
  const inner = "GET /slots HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
  client.write(
    `DELETE /models HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n${inner.length.toString(16)}\r\n${inner}\r\n0\r\n\r\n`,
  );
  await client.until("answer 1");
  client.write(post("/tokenize", "{}"));
  await client.until("answer 2");
  expect(seen).toEqual([`DELETE /models ${inner}`, "POST /tokenize {}"]);
});

it("lets a request name neither its target engine nor its learning scope", async () => {
  const seen: string[][] = [];
  const engine = await bench.httpEngine((request, response) => {
    seen.push(request.rawHeaders);
    response.end(request.url);
  });
  const { port } = await bench.proxy(engine);
  const client = await bench.client(port);
  client.write("GET http://127.0.0.2:1/props HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Aded-Scope: other\r\n\r\n");
  await client.until("http://127.0.0.2:1/props");
  client.received = "";
  client.write(post("/completion", "{}", "x-aded-scope: other\r\n"));
  await client.until("/completion");
  expect(seen).toHaveLength(2);
  for (const headers of seen) expect(headers.map((h) => h.toLowerCase())).not.toContain("x-aded-scope");
});

it("does not let Connection remove what frames a message", async () => {
  const engine = await bench.rawEngine();
  const { port } = await bench.proxy(engine);
  const client = await bench.client(port);
  client.write(
    "POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: content-length, x-drop\r\nX-Drop: 1\r\nContent-Length: 2\r\n\r\n{}",
  );
  const upstream = await engine.connection();
  await upstream.until("{}");
  expect(upstream.field("content-length")).toBe("2");
  expect(upstream.field("x-drop")).toBeUndefined();
});

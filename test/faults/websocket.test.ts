import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";

const bench = testBench();
const HANDSHAKE =
  "GET /ws?x=//1 HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nX-Aded-Scope: mine\r\n\r\n";
const ACCEPTED =
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

async function handshake(options = {}) {
  const engine = await bench.rawEngine();
  const { port, proxy } = await bench.proxy(engine, options);
  const client = await bench.client(port);
  client.write(HANDSHAKE);
  const upstream = await engine.connection();
  await upstream.until("\r\n\r\n");
  return { engine, client, upstream, proxy };
}

describe("a WebSocket", () => {
  it("is opened with the client's own handshake, and carries bytes both ways", async () => {
    const { client, upstream } = await handshake();
    expect(upstream.received).toBe(HANDSHAKE.replace("X-Aded-Scope: mine\r\n", ""));
    upstream.write(`${ACCEPTED}\x81\x05hello`);
    await client.until("hello");
    expect(client.received).toBe(`${ACCEPTED}\x81\x05hello`);
    client.write("\x81\x85\0\xff\x01\x02");
    await upstream.until("\x81\x85\0\xff\x01\x02");
    upstream.write("\x82\x7e");
    await client.until("\x82\x7e");
  });

  it("stays open one way when the other is done", async () => {
    const { client, upstream } = await handshake();
    upstream.write(ACCEPTED);
    await client.until("\r\n\r\n");
    client.end();
    await upstream.left;
    upstream.write("last words");
    await client.until("last words");
    upstream.end();
    expect(await client.closed).toBe("end");
  });

  it("is closed to the engine when the client is gone, and the other way round", async () => {
    const first = await handshake();
    first.upstream.write(ACCEPTED);
    await first.client.until("\r\n\r\n");
    first.client.reset();
    await first.upstream.left;
    const second = await handshake();
    second.upstream.write(ACCEPTED);
    await second.client.until("\r\n\r\n");
    second.upstream.reset();
    await second.client.left;
  });

  it("handshake is given up when the client leaves before the answer", async () => {
    const { client, upstream } = await handshake();
    client.reset();
    await upstream.left;
  });

  it("handshake that the engine refuses is answered as it answered, and opens no tunnel", async () => {
    const { client, upstream } = await handshake();
    upstream.write(
      "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n4\r\nnope\r\n0\r\n\r\n",
    );
    await client.left;
    expect(client.head).toMatch(/^HTTP\/1\.1 404 Not Found\r\n/);
    expect(client.field("x-a")).toBe("b");
    expect(client.body).toBe("4\r\nnope\r\n0\r\n\r\n");
    client.write("POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    await upstream.left;
    expect(upstream.received).not.toContain("/completion");
  });

  it("gives 502 when the engine dies in the handshake", async () => {
    const { client, upstream } = await handshake();
    upstream.reset();
    await client.left;
    expect(client.head).toMatch(/^HTTP\/1\.1 502 /);
    expect(JSON.parse(client.body)).toMatchObject({ error: { code: "engine_died" } });
  });

  it("needs a key and a known origin like any request", async () => {
    const engine = await bench.rawEngine();
    const { port } = await bench.proxy(engine, { apiKeys: ["k"] });
    const keyless = await bench.client(port);
    keyless.write(HANDSHAKE);
    await keyless.left;
    expect(keyless.head).toMatch(/^HTTP\/1\.1 401 /);
    const foreign = await bench.client(port);
    foreign.write(
      HANDSHAKE.replace("Upgrade:", "Origin: https://evil.example\r\nAuthorization: Bearer k\r\nUpgrade:"),
    );
    await foreign.left;
    expect(foreign.head).toMatch(/^HTTP\/1\.1 403 /);
    expect(engine.open).toBe(0);
  });

  it("is closed when the proxy goes down", async () => {
    const { client, upstream, proxy } = await handshake();
    upstream.write(ACCEPTED);
    await client.until("\r\n\r\n");
    await proxy.close(0);
    await Promise.all([client.left, upstream.left]);
  });
});

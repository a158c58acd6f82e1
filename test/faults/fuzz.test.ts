/**
 * Bytes made by chance, sent to the proxy and straight to the engine: the proxy gives the engine's answer or one of its own that is
 * documented, and goes on serving. The engine here is Node's HTTP server, which answers with all that it understood.
 */
import { createHash } from "node:crypto";
import { expect, it } from "@jest/globals";
import fc from "fast-check";
import { testBench } from "./support/bench.ts";
import { Wire } from "./support/wire.ts";

const bench = testBench();
const RUNS = { numRuns: 250, seed: 8 };

/** Own answers, by status: to bytes that are no request (400, 431), to foreign hosts (403), to large bodies (413), to a bad upgrade. */
const OWN = [400, 403, 408, 413, 431, 501, 505];

interface Reply {
  status: number;
  body: string;
}

async function servers(): Promise<{ proxy: number; engine: number }> {
  const engine = await bench.httpEngine((incoming, response) => {
    const parts: Buffer[] = [];
    incoming.on("data", (part: Buffer) => parts.push(part));
    incoming.on("error", () => undefined);
    incoming.on("end", () => {
      const body = Buffer.concat(parts);
      const { rawHeaders } = incoming;
      const fields: string[] = [];
      for (let i = 0; i < rawHeaders.length; i += 2) {
        // these end at each hop, or are the body's framing, which a buffered body gets anew
        if (
          /^(connection|keep-alive|proxy-connection|upgrade|te|expect|content-length|transfer-encoding|trailer|x-aded.*)$/i.test(
            rawHeaders[i],
          )
        )
          continue;
        fields.push(`${rawHeaders[i].toLowerCase()}: ${rawHeaders[i + 1]}`);
      }
      // on piped routes fields of one name come together
      fields.sort();
      const digest = createHash("sha256").update(body).digest("hex");
      response.end(
        JSON.stringify({ method: incoming.method, url: incoming.url, fields, length: body.length, digest }),
      );
    });
  });
  const { port } = await bench.proxy(engine);
  return { proxy: port, engine: Number(new URL(engine.address.origin).port) };
}

/** The first answer to these bytes; undefined: the connection ended, or nothing came, without one. */
async function reply(port: number, bytes: Buffer, patienceMs: number): Promise<Reply | undefined> {
  const wire = await Wire.connect(port);
  wire.write(bytes);
  const whole = (received: string): boolean => {
    const end = received.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(received.slice(0, end))?.[1] ?? 0);
    return received.length >= end + 4 + length;
  };
  // a client that has said all it had to say: what is still missing never comes
  const timer = setTimeout(() => wire.end(), patienceMs);
  await wire.until(whole).catch(() => undefined);
  clearTimeout(timer);
  wire.destroy();
  const status = /^HTTP\/1\.1 (\d{3})/.exec(wire.received)?.[1];
  return status === undefined ? undefined : { status: Number(status), body: wire.body };
}

/** Checks one request, and that the next one is answered. */
async function check(ports: { proxy: number; engine: number }, bytes: Buffer): Promise<void> {
  const both = (patienceMs: number) =>
    Promise.all([reply(ports.proxy, bytes, patienceMs), reply(ports.engine, bytes, patienceMs)]);
  const alike = ([through, direct]: (Reply | undefined)[]): boolean => {
    if (through === undefined) return direct === undefined || direct.status !== 200;
    return (
      OWN.includes(through.status) || (through.status === direct?.status && through.body === direct.body)
    );
  };
  let replies = await both(200);
  // on a busy machine an answer may just have been late
  if (!alike(replies)) replies = await both(5000);
  if (!alike(replies)) expect(replies[0]).toEqual(replies[1]);
  const next = await reply(ports.proxy, Buffer.from("GET /next HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), 60_000);
  expect(next?.status).toBe(200);
}

const method = fc.constantFrom(
  "GET",
  "POST",
  "PUT",
  "DELETE",
  "OPTIONS",
  "HEAD",
  "PATCH",
  "FROB",
  "get",
  "PRI",
  "CONNECT",
);
const path = fc.oneof(
  fc.constantFrom(
    "/",
    "/v1/chat/completions",
    "/completion",
    "/v1/messages",
    "/slots",
    "*",
    "//",
    "/a%2fb",
    "/%zz",
    "/?x=%00",
    "http://h/p",
  ),
  fc.string({ unit: "binary-ascii", maxLength: 40 }).map((text) => `/${text}`),
);
const name = fc.oneof(
  fc.constantFrom(
    "Accept",
    "X-Odd",
    "Connection",
    "TE",
    "Expect",
    "Upgrade",
    "x-aded",
    "Content-Type",
    "Cookie",
    "Trailer",
    "Origin",
  ),
  fc.string({ unit: "binary-ascii", minLength: 1, maxLength: 12 }),
);
const value = fc.oneof(
  fc.constantFrom(
    "",
    "close",
    "keep-alive",
    "on",
    "off",
    "100-continue",
    "websocket",
    "trailers",
    "a, b",
    "text/plain",
    "x-odd",
  ),
  fc.string({ unit: "binary-ascii", maxLength: 60 }),
  fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
);

it("requests with any path, headers and body, whole", async () => {
  const ports = await servers();
  const parts = fc.tuple(
    method,
    path,
    fc.array(fc.tuple(name, value), { maxLength: 5 }),
    fc.uint8Array({ maxLength: 300 }),
  );
  await fc.assert(
    fc.asyncProperty(parts, async ([verb, target, fields, body]) => {
      const lines = fields.map(([key, text]) => `${key}: ${text}\r\n`).join("");
      const head = `${verb} ${target} HTTP/1.1\r\nHost: 127.0.0.1\r\n${lines}Content-Length: ${body.length}\r\n\r\n`;
      if (verb === "HEAD" || verb === "CONNECT") return; // framed by other rules than `reply` knows
      await check(ports, Buffer.concat([Buffer.from(head, "latin1"), body]));
    }),
    RUNS,
  );
}, 300_000);

it("good requests with bytes changed, left out, or put in", async () => {
  const ports = await servers();
  const good = Buffer.from(
    'POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{"model":"m","messages":[]}',
  );
  const change = fc.tuple(
    fc.nat({ max: good.length - 1 }),
    fc.nat({ max: 3 }),
    fc.uint8Array({ maxLength: 4 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
      let bytes = good;
      for (const [at, drop, put] of changes) {
        bytes = Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(at + drop)]);
      }
      await check(ports, bytes);
    }),
    RUNS,
  );
}, 300_000);

it("bytes that are anything", async () => {
  const ports = await servers();
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 400 }), async (bytes) =>
      check(ports, Buffer.from(bytes)),
    ),
    { ...RUNS, numRuns: 80 },
  );
}, 300_000);

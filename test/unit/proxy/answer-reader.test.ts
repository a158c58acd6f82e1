import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { AnswerReader } from "../../../src/proxy/answer-reader.ts";

/** What a reader makes of these pieces of text: everything it told, the body joined. */
function readAll(pieces: readonly string[], closed = false): unknown[] {
  const told: unknown[] = [];
  let body = "";
  const reader = new AnswerReader({
    information: (status, fields) => told.push({ status, fields }),
    start: (status, message, fields) => told.push({ status, message, fields }),
    piece: (text) => {
      expect(text).not.toBe("");
      body += text;
    },
    end: (trailers, reusable) => {
      told.push({ body, trailers, reusable });
      body = "";
    },
  });
  for (const piece of pieces) reader.read(piece);
  if (closed) reader.finish();
  if (body !== "") told.push({ unfinished: body });
  return told;
}

const CHUNKED =
  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nA;x=y\r\n0123\r\n6789\r\n0\r\nX-Sum: 42\r\n\r\n";
const FIXED = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nKeep-Alive: timeout=5, max=100\r\n\r\n\0\xff\r\n\r\n!";

describe("AnswerReader", () => {
  it("reads a body of known length and a chunked one", () => {
    expect(readAll([FIXED])).toEqual([
      {
        status: 200,
        message: "OK",
        fields: ["Content-Length", "7", "Keep-Alive", "timeout=5, max=100"],
      },
      { body: "\0\xff\r\n\r\n!", trailers: [], reusable: true },
    ]);
    expect(readAll([CHUNKED])).toEqual([
      { status: 200, message: "OK", fields: ["Transfer-Encoding", "chunked"] },
      { body: "hi0123\r\n6789", trailers: ["X-Sum", "42"], reusable: true },
    ]);
  });

  it("tells the same however the bytes are cut", () => {
    const early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for (const text of [CHUNKED, FIXED, early + CHUNKED, early + FIXED, "HTTP/1.1 204 \r\n\r\n"]) {
      const whole = readAll([text]);
      fc.assert(
        fc.property(fc.array(fc.nat({ max: text.length }), { maxLength: 8 }), (cuts) => {
          const at = [0, ...cuts.sort((a, b) => a - b), text.length];
          const pieces = at.slice(1).map((end, i) => text.slice(at[i], end));
          expect(readAll(pieces)).toEqual(whole);
        }),
        { seed: 3, numRuns: 300 },
      );
      expect(readAll([...text])).toEqual(whole);
    }
  });

  it("reads the next answer on the same connection", () => {
    const told: unknown[] = [];
    const nothing = (): void => undefined;
    const reader = new AnswerReader({
      information: nothing,
      start: (status) => told.push(status),
      piece: (text) => told.push(text),
      end: (_trailers, reusable) => told.push(reusable),
    });
    for (const text of [FIXED, CHUNKED, "HTTP/1.1 204 No Content\r\n\r\n", FIXED]) reader.read(text);
    expect(told).toEqual([
      ...[200, "\0\xff\r\n\r\n!", true],
      ...[200, "hi", "0123\r\n6789", true],
      ...[204, true],
      ...[200, "\0\xff\r\n\r\n!", true],
    ]);
  });

  it("takes the connection's end for the body's only where nothing else frames it", () => {
    expect(readAll(["HTTP/1.0 200 OK\r\n\r\nab", "c"], true)).toEqual([
      { status: 200, message: "OK", fields: [] },
      { body: "abc", trailers: [], reusable: false },
    ]);
    for (const cut of [0, 5, 30, CHUNKED.length - 2, FIXED.length - 1]) {
      for (const text of [CHUNKED, FIXED]) {
        if (cut < text.length) expect(() => readAll([text.slice(0, cut)], true)).toThrow("closed");
      }
    }
  });

  it("does not use a connection again that the engine closes or that says more", () => {
    const closing = FIXED.replace("Keep-Alive: timeout=5, max=100", "connection: Close");
    expect(readAll([closing]).at(-1)).toMatchObject({ reusable: false });
    expect(readAll([FIXED.replace("HTTP/1.1", "HTTP/1.0")]).at(-1)).toMatchObject({ reusable: false });
    for (const more of ["x", FIXED]) expect(() => readAll([FIXED + more])).toThrow("more than an answer");
  });

  it.each([
    ["another protocol", "220 mail.example.com ESMTP"],
    ["another version", "HTTP/2.0 200 OK\r\n\r\n"],
    ["a status of two digits", "HTTP/1.1 20 OK\r\n\r\n"],
    ["a change of protocol", "HTTP/1.1 101 Switching Protocols\r\n\r\n"],
    ["a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi"],
    ["a folded field", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n"],
    ["a bare line feed", "HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 2\r\n\r\nhi"],
    ["a bare carriage return", "HTTP/1.1 200 OK\r\nX-A: b\rc\r\n\r\n"],
    ["a zero byte", "HTTP/1.1 200 OK\r\nX-A: b\0\r\n\r\n"],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi"],
    ["a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi"],
    ["a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi"],
    ["length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ["a chunk without a size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"],
    ["a size that is no number", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz"],
    ["a size with a prefix", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n"],
    ["a size beyond all measure", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffff\r\n"],
    ["a chunk longer than its size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n"],
    ["a chunk's end of a line feed", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\n"],
    ["endless headers", `HTTP/1.1 200 OK\r\nX-A: ${"x".repeat(70_000)}`],
    ["an endless size line", `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;${"x".repeat(5000)}`],
  ])("refuses %s", (_name, text) => {
    expect(() => readAll([text])).toThrow();
    expect(() => readAll([...text])).toThrow();
  });
});

import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import {
  headerCount,
  headerValue,
  pairs,
  requestHeaders,
  responseHeaders,
  wantedArm,
} from "../../../src/proxy/headers.ts";

describe("requestHeaders", () => {
  it("drops what concerns the connection only, keeps the rest in order and spelling", () => {
    const raw = [
      ...["Host", "h", "X-B", "1", "Connection", "keep-alive, X-Secret", "x-secret", "s"],
      ...["Keep-Alive", "timeout=5", "Proxy-Connection", "x", "X-a", "2", "TE", "gzip", "Upgrade", "h2c"],
      ...["Expect", "100-continue", "X-B", "3", "Content-Length", "2"],
    ];
    expect(requestHeaders(raw)).toEqual([
      "Host",
      "h",
      "X-B",
      "1",
      "X-a",
      "2",
      "X-B",
      "3",
      "Content-Length",
      "2",
    ]);
  });

  it("leaves the framing to the sender of a buffered body", () => {
    const raw = ["content-length", "2", "Transfer-Encoding", "chunked", "Trailer", "X", "A", "b"];
    expect(requestHeaders(raw, { buffered: true })).toEqual(["A", "b"]);
  });

  it("replaces x-aded by what was asked for, and sets the scope itself", () => {
    const raw = ["X-Aded", "On", "X-ADED-Scope", "theirs"];
    expect(requestHeaders(raw, { wanted: "on", scope: "ours" })).toEqual(["x-aded-scope", "ours"]);
    expect(requestHeaders(raw, { wanted: "off" })).toEqual(["x-aded", "off"]);
    expect(requestHeaders(raw)).toEqual(["X-Aded", "On"]);
  });

  it("keeps the handshake's fields for an upgrade", () => {
    const raw = ["Connection", "Upgrade", "Upgrade", "websocket", "Keep-Alive", "1"];
    expect(requestHeaders(raw, { upgrade: true })).toEqual(["Connection", "Upgrade", "Upgrade", "websocket"]);
  });

  it("passes TE on only as far as trailers go", () => {
    expect(requestHeaders(["TE", " Trailers "])).toEqual(["TE", " Trailers "]);
    expect(requestHeaders(["TE", "trailers, deflate"])).toEqual([]);
  });
});

describe("responseHeaders", () => {
  it("drops what concerns the connection only, and an arm that the engine claims", () => {
    const raw = [
      "Set-Cookie",
      "a",
      "KEEP-ALIVE",
      "x",
      "set-cookie",
      "b",
      "Connection",
      "close",
      "X-Aded-Arm",
      "on",
    ];
    expect(responseHeaders(raw, false)).toEqual(["Set-Cookie", "a", "set-cookie", "b"]);
  });

  it("leaves out chunking for HTTP/1.0", () => {
    const raw = ["Transfer-Encoding", "chunked", "Trailer", "X", "A", "b"];
    expect(responseHeaders(raw, true)).toEqual(["A", "b"]);
    expect(responseHeaders(raw, false)).toEqual(raw);
  });

  it("keeps every other field, whatever it is", () => {
    const own = /^(connection|keep-alive|proxy-connection|upgrade|x-aded-arm)$/i;
    const name = fc.stringMatching(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}$/).filter((text) => !own.test(text));
    fc.assert(
      fc.property(fc.array(fc.tuple(name, fc.string())), (fields) => {
        expect(responseHeaders(fields.flat(), false)).toEqual(fields.flat());
      }),
    );
  });
});

it("reads single fields without regard to case", () => {
  const raw = ["Host", "a", "X", "1", "HOST", "b"];
  expect(headerValue(raw, "host")).toBe("a");
  expect(headerValue(raw, "y")).toBeUndefined();
  expect(headerCount(raw, "host")).toBe(2);
  expect(pairs(raw)).toEqual([
    ["Host", "a"],
    ["X", "1"],
    ["HOST", "b"],
  ]);
});

it("reads the arm", () => {
  expect(wantedArm(undefined)).toBe("on");
  expect(wantedArm(" OFF ")).toBe("off");
  expect(wantedArm(["on", "off"])).toBeUndefined();
  expect(wantedArm("1")).toBeUndefined();
});

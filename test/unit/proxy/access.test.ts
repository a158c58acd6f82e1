import { createHash } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { describe, expect, it } from "@jest/globals";
import { KeyRing } from "../../../src/proxy/auth.ts";
import { isLoopback, OriginGuard } from "../../../src/proxy/origin.ts";

function request(headers: IncomingHttpHeaders): IncomingMessage {
  return { headers } as IncomingMessage;
}

describe("KeyRing", () => {
  it("takes plain keys and digests alike", () => {
    const digest = createHash("sha256").update("key").digest("hex");
    const scopes = ["key", `sha256:${digest}`, `SHA256:${digest.toUpperCase()}`].map((stored) =>
      new KeyRing([stored]).scopeOf(request({ authorization: "Bearer key" })),
    );
    expect(scopes).toEqual([digest.slice(0, 16), digest.slice(0, 16), digest.slice(0, 16)]);
  });

  it("takes a key from either header", () => {
    const ring = new KeyRing(["a", "b"]);
    expect(ring.scopeOf(request({ authorization: "Bearer wrong", "x-api-key": "b" }))).toHaveLength(16);
    expect(ring.scopeOf(request({ "x-api-key": "c" }))).toBeUndefined();
    expect(ring.scopeOf(request({}))).toBeUndefined();
  });

  it("without keys gives everyone the local scope", () => {
    const ring = new KeyRing();
    expect(ring.empty).toBe(true);
    expect(ring.scopeOf(request({}))).toBe("");
  });
});

describe("isLoopback", () => {
  it.each([
    "localhost",
    "LocalHost",
    "a.localhost",
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "[::1]",
    "::ffff:127.0.0.1",
    "localhost.",
  ])("%s is", (name) => {
    expect(isLoopback(name)).toBe(true);
  });
  it.each([
    "0.0.0.0",
    "::",
    "10.0.0.1",
    "localhost.example",
    "127.0.0.1.example",
    "1270.0.0.1",
    "::ffff:10.0.0.1",
    "",
  ])("%s is not", (name) => {
    expect(isLoopback(name)).toBe(false);
  });
});

describe("OriginGuard", () => {
  it("lets a client without the headers through: browsers always send them", () => {
    expect(new OriginGuard().check(request({}))).toBeUndefined();
  });

  it("understands '*'", () => {
    const guard = new OriginGuard({ allowedHosts: ["*"], allowedOrigins: ["*"] });
    expect(guard.check(request({ host: "any.example", origin: "https://evil.example" }))).toBeUndefined();
  });

  it("takes a wildcard for names below, not for the name itself or one that ends alike", () => {
    const guard = new OriginGuard({ allowedHosts: ["*.example.com"] });
    expect(guard.check(request({ host: "a.example.com:1" }))).toBeUndefined();
    expect(guard.check(request({ host: "example.com" }))).toMatchObject({ status: 403 });
    expect(guard.check(request({ host: "evilexample.com" }))).toMatchObject({ status: 403 });
  });

  it("takes pages of its own address, with its own port only", () => {
    const guard = new OriginGuard({ allowedHosts: ["box.lan"] });
    expect(guard.check(request({ host: "box.lan:8080", origin: "http://box.lan:8080" }))).toBeUndefined();
    expect(guard.check(request({ host: "box.lan:8080", origin: "http://box.lan:9090" }))).toMatchObject({
      status: 403,
    });
  });
});

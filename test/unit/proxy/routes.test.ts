import { describe, expect, it } from "@jest/globals";
import { findRoute, isModelList, isOwn, isPublic, rawPath } from "../../../src/proxy/routes.ts";
import { errorEvent, isPlainEventStream } from "../../../src/proxy/sse.ts";

describe("routes", () => {
  it("knows a generation route by its path alone", () => {
    expect(findRoute("POST", "/v1/chat/completions")).toMatchObject({ kind: "generate", dialect: "openai" });
    expect(findRoute("POST", "/v1/messages")).toMatchObject({ kind: "generate", dialect: "anthropic" });
    expect(findRoute("POST", "/v1/embeddings")).toMatchObject({ kind: "by-model" });
    for (const path of [
      "/v1/chat/completions/",
      "/V1/chat/completions",
      "//v1/chat/completions",
      "/props",
      "/%zz",
    ]) {
      expect(findRoute("POST", path)).toBeUndefined();
    }
    expect(findRoute("GET", "/v1/chat/completions")).toBeUndefined();
    expect(findRoute("POST", "/v1%2Fchat%2Fcompletions")).toMatchObject({ name: "/v1/chat/completions" });
  });

  it("cuts the query off and nothing else", () => {
    expect(rawPath("/a//b?c?d")).toBe("/a//b");
    expect(rawPath("*")).toBe("*");
  });

  it("makes only health, the web page and preflights public", () => {
    expect(isPublic("GET", "/health")).toBe(true);
    expect(isPublic("HEAD", "/_app/version.json")).toBe(true);
    expect(isPublic("OPTIONS", "/v1/chat/completions")).toBe(true);
    for (const path of [
      "/_app/../slots",
      "/slots",
      "/faviconx/../slots",
      "/metrics",
      "/aded/status",
      "/health/",
    ]) {
      expect(isPublic("GET", path)).toBe(false);
    }
    expect(isPublic("POST", "/health")).toBe(false);
  });

  it("knows its own paths and model lists", () => {
    expect([isOwn("/aded/x"), isOwn("/livez"), isOwn("/readyz"), isOwn("/aded"), isOwn("/adedx/")]).toEqual([
      true,
      true,
      true,
      false,
      false,
    ]);
    expect([isModelList("GET", "/models"), isModelList("POST", "/v1/models")]).toEqual([true, false]);
  });
});

describe("error events", () => {
  it("stand alone after whatever came before", () => {
    const body = { error: { message: 'a\n"b"', type: "server_error", code: "engine_died" } };
    const event = errorEvent(body, "openai");
    expect(event).toMatch(/^\n\ndata: [^\n]+\n\n$/);
    expect(JSON.parse(event.trim().slice(6))).toEqual(body);
    expect(errorEvent(body, "anthropic")).toMatch(/^\n\nevent: error\ndata: [^\n]+\n\n$/);
  });

  it.each([
    ["text/event-stream", undefined, true],
    ["Text/Event-Stream; charset=utf-8", "identity", true],
    ["text/event-stream", "gzip", false],
    ["text/event-streams", undefined, false],
    ["application/json", undefined, false],
    [undefined, undefined, false],
  ])("%s, encoded %s: %s", (type, encoding, plain) => {
    expect(isPlainEventStream(type, encoding)).toBe(plain);
  });
});

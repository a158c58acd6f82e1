import { expect, it } from "@jest/globals";
import { requestHeaders } from "../../../src/proxy/headers.ts";
import { hostOf, targetOf } from "../../../src/proxy/target.ts";

it("takes an origin apart", () => {
  expect(targetOf({ origin: "http://[::1]:81" })).toEqual({ protocol: "http:", host: "::1", port: "81" });
  expect(targetOf({ origin: "https://e.example" })).toEqual({
    protocol: "https:",
    host: "e.example",
    port: "",
  });
  expect(targetOf({ origin: "http://localhost", socketPath: "/s" }).socketPath).toBe("/s");
});

it("names the engine in Host only where it is reached by a name", () => {
  expect(hostOf({ origin: "https://e.example:444" })).toBe("e.example:444");
  expect(hostOf({ origin: "http://10.0.0.5:81" })).toBeUndefined();
  expect(hostOf({ origin: "http://localhost:81" })).toBeUndefined();
  expect(hostOf({ origin: "http://e.example", socketPath: "/s" })).toBeUndefined();
  expect(requestHeaders(["HOST", "mine", "A", "b"], { host: "e.example" })).toEqual([
    "HOST",
    "e.example",
    "A",
    "b",
  ]);
});

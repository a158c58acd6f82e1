import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "@jest/globals";
import { DelayProxy } from "../../../src/bench/delay-proxy.ts";

it("holds each piece back by its share of the time since the first, and loses none", async () => {
  const pieces = 20;
  const server = createServer(async (_, response) => {
    for (let i = 0; i < pieces; i++) {
      response.write(`${i}\n`);
      await delay(10);
    }
    response.end();
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const proxy = new DelayProxy(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, 1);
  const url = await proxy.listen();
  try {
    const answer = await fetch(url);
    let first: number | undefined;
    let text = "";
    for await (const chunk of answer.body ?? []) {
      first ??= performance.now();
      text += Buffer.from(chunk).toString();
    }
    const took = performance.now() - (first ?? 0);
    expect(text).toBe(Array.from({ length: pieces }, (_, i) => `${i}\n`).join(""));
    // 190 ms and as much again
    expect(took).toBeGreaterThan(340);
    expect(took).toBeLessThan(10_000);
  } finally {
    await proxy.close();
    server.close();
  }
}, 60_000);

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "@jest/globals";
import { DelayProxy } from "../../../src/bench/delay-proxy.ts";

it("holds each piece back by its share of the time since the first, not for those before it, and loses none", async () => {
  const server = createServer(async (_, response) => {
    for (const piece of ["a", "b", "c"]) {
      response.write(piece);
      await delay(200);
    }
    response.end();
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const proxy = new DelayProxy(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, 4);
  const url = await proxy.listen();
  try {
    const answer = await fetch(url);
    const since = performance.now();
    expect(await answer.text()).toBe("abc");
    const took = performance.now() - since;
    // "c" comes 400 ms after "a": due after 2000. Counted from when "b" had gone on, after 1000, it would be due after 5000.
    expect(took).toBeGreaterThan(1800);
    expect(took).toBeLessThan(4000);
  } finally {
    await proxy.close();
    server.close();
  }
}, 60_000);

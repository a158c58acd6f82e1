import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import type { DraftingSnapshot } from "../../../src/engine/engine.ts";
import { DraftingHost } from "../../../src/link/host.ts";
import { silentLog } from "../../../src/log.ts";
import { FakeEngine } from "./support/fake-engine.ts";
import { beginMap, helloMap, i32, stepMap } from "./support/wire.ts";

const drafterModule = new URL("./support/fake-drafter.ts", import.meta.url).href;

describe("DraftingHost", () => {
  let engine: FakeEngine;
  let host: DraftingHost;

  beforeEach(async () => {
    engine = new FakeEngine();
    await engine.listen();
    host = new DraftingHost({
      socketPath: engine.path,
      log: silentLog(),
      drafterModule,
      statusMs: 5,
      restart: { firstMs: 1, maxMs: 20 },
    });
  });

  afterEach(async () => {
    await host.stop();
    await engine.close();
  });

  async function statusWhere(test: (snapshot: DraftingSnapshot) => boolean): Promise<DraftingSnapshot> {
    for (;;) {
      const [snapshot] = (await once(host, "status")) as [DraftingSnapshot];
      if (test(snapshot)) return snapshot;
    }
  }

  it("is off, with nothing measured, before it is started", () => {
    expect(host.snapshot()).toMatchObject({
      link: "off",
      steps: 0,
      tokens_per_step: null,
      draft_us: { p50: null, p99: null },
    });
  });

  it("drafts in its thread and reports what it did", async () => {
    host.start();
    await engine.frame("hello");
    const reported = statusWhere((snapshot) => snapshot.steps === 1);
    engine.send(helloMap, beginMap, stepMap(1));
    expect(await engine.frame("draft")).toEqual({
      type: "draft",
      seq: 1,
      slots: [{ slot: 0, tokens: i32(13), parents: i32(-1) }],
    });
    const snapshot = await reported;
    expect(snapshot).toMatchObject({
      link: "connected",
      tree: true,
      steps: 1,
      tokens: 2,
      tokens_per_step: 2,
      cost_us: { "1": 1000 },
      matrix: { rows: 1, bytes: 2, limit: 3 },
      restarts: 0,
    });
    expect(snapshot.draft_us.p50).toBeGreaterThan(0);
    expect(snapshot.link_us.p99).toBeGreaterThan(0);
    const pauses = {
      pauses: expect.any(Number),
      total_ms: expect.any(Number),
      longest_ms: expect.any(Number),
    };
    expect(snapshot.gc).toEqual({ ...pauses, at_rest: pauses });
  }, 30_000);

  it("collects garbage between requests instead of in them", async () => {
    host.start();
    await engine.frame("hello");
    engine.send(helloMap, beginMap);
    const end = { type: "end", slot: 0, id: beginMap.id, reason: "eos" };
    // as this engine writes them, each leaves some kilobytes
    let steps = 0;
    const step = async () => {
      steps++;
      const reported = statusWhere((snapshot) => snapshot.steps === steps);
      engine.send(stepMap(steps));
      await engine.frame("draft", steps - 1);
      return reported;
    };
    const full = 3000;
    const last = statusWhere((snapshot) => snapshot.steps === full);
    for (; steps < full; steps++) engine.send(stepMap(steps + 1));
    const during = await last;
    expect(during.gc).toMatchObject({ pauses: 0, at_rest: { pauses: 0 } });
    engine.send(end);
    let after = during;
    for (let tries = 0; tries < 20 && after.gc?.at_rest.pauses === 0; tries++) {
      await setTimeout(300);
      engine.send(beginMap);
      after = await step();
      engine.send(end);
    }
    expect(after.gc?.at_rest.pauses).toBeGreaterThan(0);
    expect(after.gc?.pauses).toBe(0);
  }, 60_000);

  it("tells when the link is up, and gives up after a while", async () => {
    host.start();
    expect(await host.linked(1)).toBe(false);
    const linked = host.linked(60_000);
    await engine.frame("hello");
    engine.send(helloMap);
    expect(await linked).toBe(true);
    expect(host.connected).toBe(true);
    expect(await host.linked(60_000)).toBe(true);
    const stopping = new AbortController();
    await host.stop();
    stopping.abort();
    expect(await host.linked(60_000, stopping.signal)).toBe(false);
  }, 60_000);

  it("starts a crashed worker again and drafts on", async () => {
    host.start();
    await engine.frame("hello");
    engine.send(helloMap, { ...beginMap, scope: "crash" });
    await engine.frame("hello", 1);
    engine.send(helloMap, beginMap, stepMap(1));
    expect(await engine.frame("draft")).toMatchObject({ seq: 1 });
    expect(host.restarts).toBe(1);
  }, 30_000);

  it("starts a worker that cannot even load again, and stops when told", async () => {
    const broken = new DraftingHost({
      socketPath: engine.path,
      log: silentLog(),
      drafterModule: "file:///nowhere/drafter.ts",
      restart: { firstMs: 1, maxMs: 20 },
    });
    broken.start();
    await once(broken, "status");
    await once(broken, "status");
    expect(broken.restarts).toBeGreaterThanOrEqual(1);
    expect(broken.snapshot().link).toBe("connecting");
    await broken.stop();
    expect(broken.snapshot().link).toBe("off");
  }, 30_000);

  it("stops a worker that crashes meanwhile", async () => {
    const module = new URL("./support/crash-at-stop.ts", import.meta.url).href;
    const crashing = new DraftingHost({ socketPath: engine.path, log: silentLog(), drafterModule: module });
    crashing.start();
    await engine.frame("hello");
    await crashing.stop();
    expect(crashing.snapshot()).toMatchObject({ link: "off", restarts: 0 });
  }, 30_000);

  it("lets go of the engine when it is stopped", async () => {
    host.start();
    await engine.frame("hello");
    await host.stop();
    await engine.until(() => engine.peer === undefined);
    expect(host.snapshot().link).toBe("off");
  }, 30_000);
});

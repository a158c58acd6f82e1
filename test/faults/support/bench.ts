/** Starts proxies and fake engines for a test file and takes all of them down after each test. */

import type { RequestListener } from "node:http";
import { afterEach } from "@jest/globals";
import type { DraftingSnapshot } from "../../../src/engine/engine.ts";
import { silentLog } from "../../../src/log.ts";
import { type AdedProxy, createProxy, type ProxyOptions } from "../../../src/proxy/app.ts";
import { FakeEngine, type FakeEngineOptions } from "./fake-engine.ts";
import { Wire } from "./wire.ts";

export interface TestBench {
  /** An engine of which the test writes every byte. */
  rawEngine(options?: FakeEngineOptions): Promise<FakeEngine>;
  httpEngine(listener: RequestListener, options?: FakeEngineOptions): Promise<FakeEngine>;
  /** A proxy in front of these engines; the draft link of each is up. */
  proxy(
    engines: FakeEngine | FakeEngine[],
    options?: Partial<ProxyOptions>,
  ): Promise<{ port: number; proxy: AdedProxy }>;
  client(port: number): Promise<Wire>;
}

/** What a drafter reports while its link is up. */
export const LINKED: DraftingSnapshot = {
  link: "connected",
  tree: true,
  steps: 10,
  tokens: 21,
  tokens_per_step: 2.1,
  draft_us: { p50: 40, p99: 90 },
  link_us: { p50: 20, p99: null },
  exchange_us: { p50: 90, p99: null },
  cost_us: { "1": 8000, "8": 9000 },
  matrix: { rows: 5, bytes: 640, limit: 1 << 20 },
  controller: { asleep: 0, nodes: 7 },
};

export function testBench(): TestBench {
  let cleanUps: (() => Promise<unknown> | undefined)[] = [];
  afterEach(async () => {
    const all = cleanUps.reverse();
    cleanUps = [];
    for (const cleanUp of all) await cleanUp();
  });
  const keep = (engine: FakeEngine): FakeEngine => {
    cleanUps.push(() => engine.close());
    return engine;
  };
  return {
    rawEngine: async (options) => keep(await FakeEngine.raw(options)),
    httpEngine: async (listener, options) => keep(await FakeEngine.http(listener, options)),
    proxy: async (engines, options = {}) => {
      const proxy = createProxy({
        models: [engines].flat().map((engine) => ({ engine })),
        version: "1.2.3",
        log: silentLog(),
        draftingStatus: () => LINKED,
        ...options,
      });
      const { port } = await proxy.listen({ port: 0 });
      cleanUps.push(() => proxy.close(0));
      return { port, proxy };
    },
    client: async (port) => {
      const wire = await Wire.connect(port);
      cleanUps.push(() => {
        wire.destroy();
        return undefined;
      });
      return wire;
    },
  };
}

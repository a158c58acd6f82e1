import { describe, expect, it } from "@jest/globals";
import { AdedDrafter } from "../../../src/drafter/drafter.ts";
import { quantile, replay } from "../../../src/drafter/replay.ts";
import { warmUp } from "../../../src/drafter/warm-up.ts";
import { engineInfo } from "./fake-engine.ts";

describe("warmUp", () => {
  it("runs for every kind of engine without throwing", () => {
    for (const changes of [
      {},
      { tree: false, maxChain: 4 },
      { tree: false },
      { maxNodes: 1, topK: 1 },
      { nVocab: 3 },
    ]) {
      for (const search of ["best-first", "puct"] as const) {
        expect(() => warmUp(engineInfo(changes), { search }, 60)).not.toThrow();
      }
    }
  });

  it("leaves a fresh drafter as it was: nothing made up is learnt", () => {
    const info = engineInfo();
    warmUp(info, {}, 100);
    const drafter = new AdedDrafter(info, { fixedNodes: 4 });
    expect(drafter.stats().matrix.rows).toBe(0);
    const trace = { id: "", category: "", prompt: [1], tokens: [5, 6], k: 1, ids: [5, 6], probs: [1, 1] };
    expect(replay(drafter, [trace]).tokens).toBe(1);
    expect(quantile(replay(drafter, []).draftUs, 0.5)).toBeNaN();
  });
});

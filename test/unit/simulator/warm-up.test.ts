import { describe, expect, it } from "@jest/globals";
import { AdedDrafter } from "../../../src/drafter/drafter.ts";
import { quantile, replay } from "../../../src/simulator/replay.ts";
import { warmUp } from "../../../src/simulator/warm-up.ts";
import { engineInfo } from "../drafter/fake-engine.ts";
import { textTrace } from "./support/traces.ts";

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
    const trace = textTrace("", [1], [5, 6], { k: 1 });
    expect(replay(drafter, [trace]).tokens).toBe(1);
    expect(quantile(replay(drafter, []).draftUs, 0.5)).toBeNaN();
  });
});

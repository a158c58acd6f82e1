import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import { AdedDrafter } from "../../../src/drafter/drafter.ts";
import { quantile, readTraces, replay, replayEngine, type Trace } from "../../../src/drafter/replay.ts";

/** A text in a cycle of 20 tokens: after one round everything is known. */
function cycle(id: string, length: number): Trace {
  const tokens = Array.from({ length }, (_, i) => i % 20);
  return {
    id,
    category: "cycle",
    prompt: [30, 31, 19],
    tokens,
    k: 2,
    ids: tokens.flatMap((token) => [token, 40]),
    probs: tokens.flatMap(() => [0.8, 0.2]),
  };
}

describe("replay", () => {
  it("emits every token of the trace but the prompt's first once, in steps", () => {
    const traces = [cycle("a", 100)];
    const result = replay(new AdedDrafter(replayEngine(traces, 7), { fixedNodes: 7 }), traces);
    expect(result.tokens).toBe(99);
    expect(result.steps).toBeLessThan(99);
    expect(result.tokensPerStep).toBeCloseTo(99 / result.steps);
    expect(result.draftUs.length).toBe(result.steps + 1);
  });

  it("needs one step per token without drafts", () => {
    const traces = [cycle("a", 50)];
    const result = replay(new AdedDrafter(replayEngine(traces, 7), { fixedNodes: 0 }), traces);
    expect(result.steps).toBe(49);
    expect(result.tokensPerStep).toBe(1);
  });

  it("keeps what was learnt from one trace to the next", () => {
    const traces = [cycle("a", 60), cycle("b", 60)];
    const info = replayEngine(traces, 7);
    const both = replay(new AdedDrafter(info, { fixedNodes: 7 }), traces);
    const first = replay(new AdedDrafter(info, { fixedNodes: 7 }), traces.slice(0, 1));
    expect(both.steps - first.steps).toBeLessThan(first.steps);
  });

  it("gives the same figures again", () => {
    const traces = [cycle("a", 80)];
    const once = () => replay(new AdedDrafter(replayEngine(traces, 5), { fixedNodes: 5 }), traces).steps;
    expect(once()).toBe(once());
  });

  it("has no tokens per step without steps, and no quantile without samples", () => {
    const result = replay(new AdedDrafter(replayEngine([], 7)), []);
    expect(result.tokensPerStep).toBe(0);
    expect(quantile(result.draftUs, 0.5)).toBeNaN();
    expect(quantile(Float64Array.of(3, 1, 2), 0.5)).toBe(2);
  });

  it("reads traces from JSON lines", () => {
    const folder = mkdtempSync(join(tmpdir(), "replay-"));
    const file = join(folder, "traces.jsonl");
    writeFileSync(file, `${JSON.stringify(cycle("a", 3))}\n\n${JSON.stringify(cycle("b", 4))}\n`);
    expect(readTraces(file).map((t) => t.id)).toEqual(["a", "b"]);
    for (const bad of ["{", "{}", "null", JSON.stringify({ ...cycle("c", 3), probs: [] })]) {
      writeFileSync(file, `${JSON.stringify(cycle("a", 3))}\n${bad}\n`);
      expect(() => readTraces(file)).toThrow("traces.jsonl:2 is not");
    }
    rmSync(folder, { recursive: true });
  });
});

import { describe, expect, it } from "@jest/globals";
import type { Drafter, SlotDraft, VerifiedStep } from "../../../src/drafter/draft.ts";
import { AdedDrafter } from "../../../src/drafter/drafter.ts";
import { fill, MissingNodes } from "../../../src/simulator/fill.ts";
import { OffPath } from "../../../src/simulator/off-path.ts";
import { quantile, replay, replayEngine, shuffled } from "../../../src/simulator/replay.ts";
import type { Trace } from "../../../src/simulator/trace.ts";
import { textTrace } from "./support/traces.ts";

/** Drafts the same tree at every step and keeps what it is told. */
class Fixed implements Drafter {
  readonly steps: VerifiedStep[] = [];
  private readonly tree: Pick<SlotDraft, "tokens" | "parents">;

  constructor(tokens: number[], parents: number[]) {
    this.tree = { tokens: Int32Array.from(tokens), parents: Int32Array.from(parents) };
  }

  begin(): void {}

  observe(step: VerifiedStep): void {
    this.steps.push(step);
  }

  draft(): SlotDraft[] {
    return [{ slot: 0, sleep: 0, ...this.tree }];
  }

  end(): void {}

  stats(): never {
    throw new Error("not asked for here");
  }
}

/** A text in a cycle of 20 tokens: after one round everything is known. */
function cycle(id: string, length: number): Trace {
  const tokens = Array.from({ length }, (_, i) => i % 20);
  return textTrace(id, [30, 31, 19], tokens, { k: 2, rows: tokens.map((token) => [token, 40]) });
}

const list = (array: ArrayLike<number>): number[] => Array.from(array);

describe("replay", () => {
  it("emits every token of the trace but the prompt's first once, in steps", () => {
    const traces = [cycle("a", 100)];
    const result = replay(new AdedDrafter(replayEngine(traces, 7), { fixedNodes: 7 }), traces);
    expect(result.tokens).toBe(99);
    expect(result.steps).toBeLessThan(99);
    expect(result.tokensPerStep).toBeCloseTo(99 / result.steps);
    expect(result.observeUs.length).toBe(result.steps + 1);
  });

  it("needs one step per token without drafts", () => {
    const traces = [cycle("a", 50)];
    const result = replay(new AdedDrafter(replayEngine(traces, 7), { fixedNodes: 0 }), traces);
    expect(result).toMatchObject({ steps: 49, tokensPerStep: 1 });
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
    expect(result.tokensPerStep).toBeNaN();
    expect(quantile(result.draftUs, 0.5)).toBeNaN();
    expect(quantile(Float64Array.of(3, 1, 2), 0.5)).toBe(2);
  });

  it("accepts the path that the text took and reports every verified node in levels", () => {
    const trace = textTrace("a", [1, 2], [10, 11, 12, 13], { k: 2 });
    // below the root: 12 (wrong), 11, 11 12 and 11 9
    const drafter = new Fixed([12, 11, 12, 9], [-1, -1, 1, 1]);
    const result = replay(drafter, [trace]);
    expect(drafter.steps.map(({ slots }) => list(slots[0].accepted))).toEqual([[10], [11, 12, 13]]);
    const [slot] = drafter.steps[1].slots;
    expect(list(slot.nodes)).toEqual([10, 12, 11, 12, 9]);
    expect(list(slot.parents)).toEqual([-1, 0, 0, 2, 2]);
    expect(list(slot.path)).toEqual([0, 2, 3]);
    expect(list(slot.ids.subarray(0, 2))).toEqual(list(trace.ids.subarray(2, 4)));
    expect(list(slot.ids.subarray(2, 4))).toEqual([-1, -1]);
    expect(result).toMatchObject({ steps: 1, tokens: 3, tokensPerStep: 3, nodes: 4, rejected: 2, known: 0 });
    expect(result.texts).toEqual([{ id: "a", category: "made up", steps: 1, tokens: 3 }]);
  });

  it("never accepts the text's last token as a node: its successors are unknown", () => {
    const trace = textTrace("a", [1], [10, 11], { k: 1 });
    const drafter = new Fixed([11], [-1]);
    expect(replay(drafter, [trace])).toMatchObject({ steps: 1, tokens: 1 });
  });

  it("tells what is known of rejected nodes, unless asked not to, and names the unknown ones", () => {
    const trace = textTrace("a", [1, 2], [10, 11, 12], { k: 2 });
    trace.offPath = new OffPath(2);
    trace.offPath.add(1, 50, [7, 8], [0.5, 0.25], 0);
    const missing: string[] = [];
    const drafter = new Fixed([50, 51], [-1, 0]);
    const result = replay(drafter, [trace], {
      onMissing: ({ position, path }) => missing.push(`${position}: ${path.join(" ")}`),
    });
    expect(list(drafter.steps[1].slots[0].ids.subarray(2, 4))).toEqual([7, 8]);
    expect(missing).toEqual(["1: 50 51", "2: 50", "2: 50 51"]);
    expect(result).toMatchObject({ rejected: 4, known: 1 });
    const without = replay(new Fixed([50, 51], [-1, 0]), [trace], { offPath: false });
    expect(without.known).toBe(0);
  });

  it("tells fewer successors when asked to", () => {
    const drafter = new Fixed([], []);
    replay(drafter, [textTrace("a", [1], [2, 3], { k: 4 })], { topK: 2 });
    expect(drafter.steps.every(({ slots }) => slots[0].k === 2 && slots[0].ids.length === 2)).toBe(true);
  });

  it("is the same for the same seed, in another order for another", () => {
    const traces = Array.from({ length: 20 }, (_, i) => textTrace(`${i}`, [1], [2, 3, 4 + i, 2, 3], {}));
    const order = (seed: number) => shuffled(traces, seed).map(({ id }) => id);
    expect(order(1)).toEqual(order(1));
    expect(order(1)).not.toEqual(order(2));
    const once = () =>
      replay(new AdedDrafter(replayEngine(traces, 7), { fixedNodes: 7 }), shuffled(traces, 1)).steps;
    expect(once()).toBe(once());
  });

  it("drafts a text that repeats itself in fewer steps than it has tokens", () => {
    const tokens = Array.from({ length: 90 }, (_, i) => 20 + (i % 6));
    const traces = [textTrace("loop", [1, 2], tokens, {})];
    const plain = replay(new AdedDrafter(replayEngine(traces, 7), { fixedNodes: 0 }), traces);
    expect(plain.tokensPerStep).toBe(1);
    const drafted = replay(new AdedDrafter(replayEngine(traces, 7), { fixedNodes: 7 }), traces);
    expect(drafted.tokensPerStep).toBeGreaterThan(3);
  });
});

describe("fill", () => {
  /** A model that says the sum of all tokens before, and that plus 1. */
  const sums = async (prompt: Int32Array, tree: { tokens: Int32Array; parents: Int32Array }, k: number) => {
    const before = prompt.reduce((sum, token) => sum + token, 0);
    const ids = new Int32Array(tree.tokens.length * k);
    const at: number[] = [];
    for (const [i, token] of tree.tokens.entries()) {
      at[i] = token + (tree.parents[i] < 0 ? before : at[tree.parents[i]]);
      for (let j = 0; j < k; j++) ids[i * k + j] = at[i] + j;
    }
    return { ids, probs: new Float32Array(ids.length).fill(0.5) };
  };

  it("asks for what is missing in few trees, and the next replay misses nothing", async () => {
    const traces = [
      textTrace("a", [1, 2], [10, 11, 12, 13], { k: 2 }),
      textTrace("b", [3], [4, 5], { k: 2 }),
    ];
    const draft = () => new Fixed([50, 51, 11, 52], [-1, 0, -1, 2]);
    const missing = new MissingNodes();
    replay(draft(), traces, { onMissing: (node) => missing.add(node) });
    let trees = 0;
    const added = await fill(missing, (prompt, tree, k) => {
      trees++;
      return sums(prompt, tree, k);
    });
    expect(trees).toBe(2);
    expect(added).toBe(missing.count);
    const drafter = draft();
    const result = replay(drafter, traces);
    expect(result.known).toBe(result.rejected);
    // prompt, 10, 11, 52: what the model says after 1 + 2 + 10 + 11 + 52
    const [slot] = drafter.steps[1].slots;
    expect(list(slot.nodes)).toEqual([10, 50, 11, 51, 52]);
    expect(list(slot.ids.subarray(8, 10))).toEqual([76, 77]);
  });

  it("asks for no node twice, however often it is named", () => {
    const trace = textTrace("a", [1], [2, 3], {});
    const other = textTrace("a", [1], [2, 3], {});
    const missing = new MissingNodes();
    missing.add({ trace, position: 1, path: [5] });
    missing.add({ trace, position: 1, path: [5] });
    // a text of the same name from another file is another one
    missing.add({ trace: other, position: 1, path: [5] });
    expect(missing.count).toBe(2);
  });

  it("splits what exceeds a tree", async () => {
    const trace = textTrace("a", [1], [2, 3, 4, 5, 6, 7], { k: 1 });
    const missing = new MissingNodes();
    for (let token = 100; token < 130; token++)
      missing.add({ trace, position: 1 + (token % 5), path: [token] });
    const sizes: number[] = [];
    await fill(
      missing,
      (prompt, tree, k) => {
        sizes.push(tree.tokens.length);
        return sums(prompt, tree, k);
      },
      { most: 12 },
    );
    expect(Math.max(...sizes)).toBeLessThanOrEqual(12);
    expect(trace.offPath?.count).toBe(30);
  });
});

import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import type { EngineInfo } from "../../../src/drafter/draft.ts";
import { AdedDrafter } from "../../../src/drafter/drafter.ts";
import type { DrafterOptions } from "../../../src/drafter/options.ts";
import { AdedError } from "../../../src/errors.ts";
import { cyclic, engineInfo, FakeEngine, GREEDY, type Model } from "./fake-engine.ts";

function engineOf(
  options: DrafterOptions = {},
  changes: Partial<EngineInfo> = {},
  model: Model = cyclic(40),
) {
  const info = engineInfo(changes);
  const drafter = new AdedDrafter(info, options);
  return { drafter, engine: new FakeEngine(drafter, info, model) };
}

function run(engine: FakeEngine): { steps: number; tokens: number } {
  let steps = 0;
  let tokens = 0;
  while (engine.busy) {
    tokens += engine.step();
    steps++;
  }
  return { steps, tokens };
}

/** Always the same cost for one more token as for the first: drafts cannot pay. */
const PROPORTIONAL = { costTokens: Int32Array.of(1, 64), costUs: Float32Array.of(1000, 64_000) };

/** A model whose every successor depends on the whole context: nothing can be learnt from the last tokens. */
const chaos: Model = (context) => {
  let h = context.length;
  for (const token of context) h = Math.imul(h ^ token, 0x9e3779b1) ^ (h >>> 13);
  return { ids: [0, 1, 2, 3].map((i) => (h >>> (i * 7)) % 499), probs: [0.3, 0.2, 0.1, 0.1] };
};

describe("AdedDrafter", () => {
  for (const search of ["best-first", "puct"] as const) {
    for (const tree of [true, false]) {
      it(`answers any traffic with valid drafts (${search}, ${tree ? "trees" : "chains"})`, () => {
        const request = fc.record({
          slot: fc.nat(3),
          length: fc.integer({ min: 1, max: 40 }),
          left: fc.integer({ min: 1, max: 30 }),
          temperature: fc.constantFrom(0, 0.5, 1, 2),
          scope: fc.constantFrom("", "a", "b"),
        });
        fc.assert(
          fc.property(
            fc.array(request, { minLength: 1, maxLength: 12 }),
            fc.constantFrom(undefined, 0, 1, 7, 63),
            fc.integer({ min: 1, max: 64 }),
            (requests, fixedNodes, maxNodes) => {
              const changes = { maxNodes, tree, maxChain: 3 };
              const { engine } = engineOf({ search, fixedNodes }, changes, cyclic(25, 0.6));
              for (const r of requests) {
                const prompt = Array.from({ length: r.length }, (_, i) => (i * 3) % 25);
                const sampling = { ...GREEDY, greedy: r.temperature === 0, temperature: r.temperature };
                engine.begin(r.slot, prompt, r.left, sampling, r.scope);
                for (let i = 0; i < 4 && engine.busy; i++) engine.step();
              }
              run(engine);
            },
          ),
          { numRuns: 25 },
        );
      });
    }
  }

  it("learns a text that repeats and then emits many tokens per step", () => {
    const { drafter, engine } = engineOf();
    engine.begin(0, [0], 400);
    run(engine);
    engine.begin(0, [0], 400);
    const again = run(engine);
    expect(again.tokens).toBe(400);
    expect(again.tokens / again.steps).toBeGreaterThan(4);
    const stats = drafter.stats();
    expect(stats.tokens).toBe(800);
    expect(stats.tokensPerStep).toBeCloseTo(800 / stats.steps);
    expect(stats.acceptedNodes).toBeLessThanOrEqual(stats.draftedNodes);
    expect(stats.matrix.rows).toBeGreaterThan(80);
    expect(stats.matrix.bytes).toBeLessThanOrEqual(stats.matrix.limit);
  });

  it("learns from rejected nodes too", () => {
    const { drafter, engine } = engineOf({ fixedNodes: 7 }, {}, chaos);
    engine.begin(0, [1, 2, 3], 30);
    run(engine);
    const { steps, draftedNodes, matrix } = drafter.stats();
    expect(draftedNodes).toBeGreaterThan(50);
    expect(matrix.rows).toBeGreaterThan(2 * steps + 20);
  });

  it("drafts after a new word what followed the words that were likely in its place", () => {
    const step = (node: number, ids: number[]) => ({
      decodeUs: 0,
      nBatch: 1,
      slots: [
        {
          slot: 0,
          accepted: Int32Array.of(ids[0]),
          nodes: Int32Array.of(node),
          parents: Int32Array.of(-1),
          path: Int32Array.of(0),
          k: 2,
          ids: Int32Array.from(ids),
          probs: Float32Array.of(0.5, 0.4),
          room: 8,
          draft: true,
        },
      ],
    });
    const placeOf30 = (options: DrafterOptions): number => {
      const drafter = new AdedDrafter(engineInfo(), { fixedNodes: 8, ...options });
      drafter.begin({ slot: 0, id: 1, scope: "", keep: 0, tokens: Int32Array.of(3), sampling: GREEDY });
      // 30 or 31 follow 7; after 5 the model says 20, though 7 was nearly as likely
      for (const s of [step(3, [8, 9]), step(8, [3, 9]), step(3, [8, 9]), step(8, [7, 9])])
        drafter.observe(s);
      for (const s of [step(7, [30, 31]), step(30, [5, 6])]) drafter.observe(s);
      const last = step(5, [20, 7]);
      drafter.observe(last);
      return [...drafter.draft(last)[0].tokens, 30].indexOf(30);
    };
    expect(placeOf30({})).toBeLessThan(placeOf30({ without: ["alternate"] }));
  });

  it("knows a repetition in the request itself at once", () => {
    const { engine } = engineOf({ fixedNodes: 8 });
    const prompt = [...Array.from({ length: 40 }, (_, i) => i), 0, 1, 2];
    engine.begin(0, prompt, 60);
    engine.step();
    const draft = engine.lastDrafts.get(0);
    expect([...draft!.tokens.subarray(0, 3)]).toEqual([4, 5, 6]);
  });

  it("sleeps where drafts cannot pay, and hardly drafts at all", () => {
    const { drafter, engine } = engineOf({}, PROPORTIONAL, chaos);
    engine.begin(0, [0], 600);
    let asleep = 0;
    while (engine.busy) {
      engine.step();
      asleep += drafter.stats().controller.asleep;
    }
    expect(asleep).toBeGreaterThan(500);
    expect(drafter.stats().draftedNodes).toBeLessThan(30);
    expect(drafter.stats().matrix.rows).toBeGreaterThan(600);
  });

  it("wakes up when the text becomes predictable", () => {
    let seen = 0;
    const turning: Model = (context) => {
      seen = Math.max(seen, context.length);
      return context.length < 300 ? chaos(context) : cyclic(20)(context);
    };
    const { drafter, engine } = engineOf({}, {}, turning);
    engine.begin(0, [0], 900);
    while (engine.busy && engine.contextOf(0).length < 600) engine.step();
    const before = drafter.stats();
    run(engine);
    const after = drafter.stats();
    expect((after.tokens - before.tokens) / (after.steps - before.steps)).toBeGreaterThan(3);
  });

  it("does without drafts for a request that does not want them, and learns nothing from it", () => {
    const { drafter, engine } = engineOf();
    engine.begin(0, [0], 100, { ...GREEDY, draft: false });
    const { steps } = run(engine);
    expect(steps).toBe(100);
    expect(drafter.stats()).toMatchObject({ steps: 0, tokens: 0, matrix: { rows: 0 } });
  });

  it("learns from plain requests when it is told to", () => {
    const { drafter, engine } = engineOf({ learnFromPlain: true });
    engine.begin(0, [0], 100, { ...GREEDY, draft: false });
    run(engine);
    expect(drafter.stats().matrix.rows).toBeGreaterThan(40);
  });

  it("keeps scopes apart and forgets on purge", () => {
    const { drafter, engine } = engineOf({ fixedNodes: 7 });
    // After token 1 comes 2; only who has seen it can know.
    const knows = (scope: string) => {
      engine.begin(0, [0], 10, GREEDY, scope);
      engine.step();
      const tokens = engine.lastDrafts.get(0)?.tokens ?? new Int32Array(0);
      run(engine);
      return tokens.includes(2);
    };
    engine.begin(0, [0], 200, GREEDY, "a");
    run(engine);
    expect(knows("b")).toBe(false);
    expect(knows("a")).toBe(true);
    expect(knows("b")).toBe(true);
    expect(drafter.purge("b")).toBe(true);
    expect(knows("b")).toBe(false);
    expect(knows("a")).toBe(true);
    expect(drafter.purge("nobody")).toBe(false);
  });

  it("gives one key nothing of what another's requests taught, and all of it when scopes are shared", () => {
    const accepted = (shareScopes: boolean, taught: boolean): number => {
      const { drafter, engine } = engineOf({ fixedNodes: 7, shareScopes });
      for (let i = 0; taught && i < 3; i++) {
        engine.begin(0, [i], 200, GREEDY, "key-a");
        run(engine);
      }
      const before = drafter.stats().acceptedNodes;
      engine.begin(0, [0], 35, GREEDY, "key-b");
      run(engine);
      return drafter.stats().acceptedNodes - before;
    };
    // to the node what a fresh drafter accepts: neither rows nor history, calibration or weights come from the other key
    expect(accepted(false, true)).toBe(accepted(false, false));
    expect(accepted(true, true)).toBeGreaterThan(accepted(true, false) + 10);
  });

  it("does without the sources that it is told to leave out", () => {
    const knows = (without: DrafterOptions["without"]): boolean => {
      const { engine } = engineOf({ fixedNodes: 4, without });
      engine.begin(0, [...Array.from({ length: 40 }, (_, i) => i), 0, 1, 2], 60);
      engine.step();
      return engine.lastDrafts.get(0)?.tokens.includes(4) ?? false;
    };
    expect(knows([])).toBe(true);
    expect(knows(["suffix"])).toBe(false);
  });

  it("keeps what a slot held as far as the next request says", () => {
    const { drafter, engine } = engineOf({ fixedNodes: 4 });
    engine.begin(
      0,
      Array.from({ length: 30 }, (_, i) => i),
      20,
    );
    run(engine);
    expect(() =>
      drafter.begin({
        slot: 0,
        id: 9,
        scope: "",
        keep: 1_000,
        tokens: Int32Array.of(5, 6),
        sampling: GREEDY,
      }),
    ).not.toThrow();
    expect(() =>
      drafter.begin({ slot: 0, id: 10, scope: "", keep: 10, tokens: Int32Array.of(1, 2), sampling: GREEDY }),
    ).not.toThrow();
  });

  it("gives the same drafts for the same traffic and seed", () => {
    const record = (search: DrafterOptions["search"]) => {
      const { engine } = engineOf({ search, seed: 7 }, {}, cyclic(30, 0.5));
      const drafts: unknown[] = [];
      for (const slot of [0, 1, 2]) engine.begin(slot, [slot, slot + 1], 80);
      while (engine.busy) {
        engine.step();
        drafts.push(
          [...engine.lastDrafts.values()].map((d) => [d.slot, [...d.tokens], [...d.parents], d.sleep]),
        );
      }
      return drafts;
    };
    for (const search of ["best-first", "puct"] as const) expect(record(search)).toEqual(record(search));
  });

  it("ignores steps, ends and slots that it knows nothing of", () => {
    const drafter = new AdedDrafter(engineInfo());
    const slot = {
      slot: 2,
      accepted: Int32Array.of(1),
      nodes: Int32Array.of(4),
      parents: Int32Array.of(-1),
      path: Int32Array.of(0),
      k: 1,
      ids: Int32Array.of(1),
      probs: Float32Array.of(1),
      room: 5,
      draft: true,
    };
    const step = { decodeUs: 10, nBatch: 1, slots: [slot] };
    drafter.observe(step);
    expect(drafter.draft(step)).toEqual([]);
    drafter.end(2, 5, "eos");
    drafter.begin({ slot: 77, id: 1, scope: "", keep: 0, tokens: Int32Array.of(1), sampling: GREEDY });
    expect(drafter.stats().steps).toBe(0);
  });

  it("refuses options out of bounds with the name and what is allowed", () => {
    try {
      new AdedDrafter(engineInfo(), { maxNodes: 0 });
      throw new Error("nothing was thrown");
    } catch (error) {
      expect(error).toBeInstanceOf(AdedError);
      expect((error as AdedError).code).toBe("ADED_CONFIG");
      expect((error as AdedError).message).toContain("maxNodes = 0");
      expect((error as AdedError).hint).toContain("1 to 1024");
    }
  });
});

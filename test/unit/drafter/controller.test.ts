import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { Controller, type StepCost } from "../../../src/drafter/controller.ts";
import { CostModel } from "../../../src/drafter/cost-model.ts";
import { DraftTree } from "../../../src/drafter/draft-tree.ts";
import { Random } from "../../../src/drafter/random.ts";

/** A tree of siblings with the given priors, all picked. */
function treeOf(priors: readonly number[]): DraftTree {
  const tree = new DraftTree(64, 64, 2);
  tree.reset(1);
  for (const [i, p] of priors.entries()) tree.addChild(0, i, p);
  for (let cell = 1; cell < tree.cells; cell++) tree.pick(cell);
  return tree;
}

function costOf(points: Record<number, number>, most = 64): CostModel {
  const n = Object.keys(points).map(Number);
  return new CostModel(Int32Array.from(n), Float32Array.from(Object.values(points)), most);
}

/** The same, its table confirmed for two tokens: nothing is left to try. */
function knownCostOf(points: Record<number, number>): CostModel {
  const cost = costOf(points);
  for (let i = 0; i < 3; i++) cost.observe(2, cost.us(2));
  return cost;
}

function controllerOf(cost: CostModel, nSlots = 4, maxNodes = 60, overheadUs = 0): Controller {
  return new Controller(nSlots, maxNodes, cost, overheadUs, new Random(1));
}

function stepOf(
  roots: number,
  nodes: number,
  nBatch: number,
  decodeUs: number,
  spentUs: number,
  asked = 1,
): StepCost {
  return { roots, nodes, nBatch, decodeUs, asked, spentUs };
}

describe("overhead", () => {
  const cost = () => costOf({ 1: 3000, 2: 3100, 8: 3600 });
  const nodes = (controller: Controller) =>
    controller.allocate([treeOf([0.2, 0.1])], Int32Array.of(0), 1, 1, 60);

  it("is what the engine measures: where asking costs more than a draft gains, there is none", () => {
    const controller = controllerOf(cost(), 1, 60, 150);
    expect(nodes(controller)).toBeGreaterThan(0);
    for (let i = 0; i < 200; i++) controller.observe(stepOf(1, 0, 1, 3000, 900, 1));
    expect(nodes(controller)).toBe(0);
    for (let i = 0; i < 300; i++) controller.observe(stepOf(1, 0, 1, 3000, 50, 1));
    expect(nodes(controller)).toBeGreaterThan(0);
  });

  it("counts what makes the pass after an exchange slower, and does not take that pass for a plain one", () => {
    const controller = controllerOf(cost(), 1, 60, 150);
    for (let i = 0; i < 200; i++) controller.observe(stepOf(1, 0, 1, 3700, 200, 1));
    expect(controller.cost.us(1)).toBe(3000);
    expect(nodes(controller)).toBe(0);
  });

  it("is not upset by one hiccup, nor by steps that did not ask", () => {
    const controller = controllerOf(cost(), 1, 60, 150);
    controller.observe(stepOf(1, 0, 1, 0, 1e9, 1));
    for (let i = 0; i < 1000; i++) controller.observe(stepOf(1, 0, 1, 3000, 0, 0));
    expect(nodes(controller)).toBeGreaterThan(0);
  });
});

describe("CostModel", () => {
  it("interpolates between the measured points and goes on in proportion after them", () => {
    const cost = costOf({ 1: 100, 4: 160, 8: 400 });
    expect(cost.us(1)).toBeCloseTo(100);
    expect(cost.us(3)).toBeCloseTo(140);
    expect(cost.us(6)).toBeCloseTo(280);
    expect(cost.us(16)).toBeCloseTo(800);
  });

  it("follows what steps really take, at once for their own size and slowly for the others", () => {
    const cost = costOf({ 1: 100, 8: 200 });
    for (let i = 0; i < 10; i++) cost.observe(8, 300);
    expect(cost.us(8)).toBeGreaterThan(260);
    // that the table was wrong about one size says nothing of the others …
    expect(cost.us(1)).toBe(100);
    for (let i = 0; i < 300; i++) cost.observe(8, 300);
    expect(cost.us(8)).toBeCloseTo(300, 0);
    expect(cost.us(1)).toBeLessThan(105);
    // … but a size that is known and becomes slower does
    for (let i = 0; i < 10; i++) cost.observe(8, 450);
    const other = cost.us(1) / 100;
    expect(other).toBeGreaterThan(1.05);
    expect(other).toBeLessThan(cost.us(8) / 300);
    const plain = costOf({ 1: 100, 8: 200 });
    for (let i = 0; i < 10; i++) plain.observe(1, 150);
    expect(plain.us(8)).toBeGreaterThan(205);
  });

  it("is not upset by one outlier, nor by what cannot be a measurement", () => {
    const cost = costOf({ 1: 100, 8: 200 });
    cost.observe(8, 1e9);
    expect(cost.us(8)).toBeLessThan(230);
    const before = cost.us(8);
    for (const [n, us] of [
      [8, 0],
      [8, -5],
      [8, Number.NaN],
      [0, 100],
      [1000, 100],
    ])
      cost.observe(n, us);
    expect(cost.us(8)).toBe(before);
  });

  it("asks for a plain step when none was measured for long, less and less often", () => {
    const cost = costOf({ 1: 100, 8: 200 });
    // it is to be known first
    for (let i = 0; i < 3; i++) cost.observe(1, 100);
    const gaps: number[] = [];
    for (let since = 0; gaps.length < 4; since++) {
      if (cost.wantsPlain(1)) {
        gaps.push(since);
        since = 0;
        cost.askedPlain(1);
        cost.observe(1, 100);
      }
      cost.observe(8, 200);
    }
    for (let i = 1; i < gaps.length; i++) expect(gaps[i]).toBeGreaterThan(1.5 * gaps[i - 1]);
  });

  it("believes three measurements against the table, and three in a row against those before", () => {
    const cost = costOf({ 1: 100, 8: 1000 });
    cost.observe(8, 220);
    expect(cost.us(8)).toBeGreaterThan(500);
    cost.observe(8, 200);
    cost.observe(8, 210);
    expect(cost.us(8)).toBeCloseTo(210, 5);
    for (const us of [900, 220, 900, 220]) cost.observe(8, us);
    expect(cost.us(8)).toBeLessThan(260);
    for (let i = 0; i < 3; i++) cost.observe(8, 500);
    expect(cost.us(8)).toBeGreaterThan(450);
  });

  it("takes what is measured to tell of the sizes between, and no smaller pass to be much dearer", () => {
    const cost = costOf({ 1: 400, 2: 900, 4: 500, 8: 200, 16: 1000 });
    for (let i = 0; i < 3; i++) cost.observe(8, 140);
    // the plain step, too, but for itself it is asked for
    expect(cost.us(1)).toBeCloseTo(1.15 * 140);
    expect(cost.wantsPlain(1)).toBe(false);
    cost.observe(8, 140);
    for (let i = 0; i < 3; i++) {
      expect(cost.wantsPlain(1)).toBe(true);
      cost.askedPlain(1);
      cost.observe(1, 100);
      cost.observe(8, 140);
      cost.observe(8, 140);
    }
    expect(cost.us(1)).toBeCloseTo(100, 0);
    expect(cost.wantsPlain(1)).toBe(false);
    for (let n = 2; n < 8; n++) expect(cost.us(n)).toBeLessThan(150);
    // the line from 1 through 8, not the table's 700
    expect(cost.us(16)).toBeLessThan(190);
    expect(cost.us(16)).toBeGreaterThan(140);
  });

  it("does not ask for ever for a plain step that does not come", () => {
    const cost = costOf({ 1: 100, 8: 200 });
    let asked = 0;
    for (let i = 0; i < 1000; i++) {
      cost.observe(8, 200);
      if (!cost.wantsPlain(1)) continue;
      cost.askedPlain(1);
      asked++;
    }
    expect(asked).toBeLessThan(260);
    expect(asked).toBeGreaterThan(1);
  });

  it("works without a table", () => {
    const cost = costOf({});
    expect(cost.us(1)).toBe(cost.us(9));
  });
});

describe("Controller", () => {
  const one = Int32Array.of(0);

  it("takes the number of nodes with the best rate of tokens per time", () => {
    const probabilities = fc.array(fc.double({ min: 0.001, max: 1, noNaN: true }), { maxLength: 30 });
    const steps = fc.array(fc.integer({ min: 0, max: 60 }), { minLength: 40, maxLength: 40 });
    fc.assert(
      fc.property(probabilities, steps, (probs, increments) => {
        const priors = probs.sort((a, b) => b - a);
        const points: Record<number, number> = {};
        let us = 100;
        for (const [i, add] of increments.entries()) {
          points[i + 1] = us;
          us += add;
        }
        const cost = knownCostOf(points);
        const n = controllerOf(cost).allocate([treeOf(priors)], one, 1, 1, 60);
        const rate = (m: number) => (1 + priors.slice(0, m).reduce((a, b) => a + b, 0)) / cost.us(1 + m);
        for (let m = 0; m <= priors.length; m++) expect(rate(n) * 1.011).toBeGreaterThanOrEqual(rate(m));
      }),
      { numRuns: 200 },
    );
  });

  it("uses a flat stretch behind a cliff", () => {
    const cost = costOf({ 1: 100, 4: 101, 5: 150, 8: 151 });
    expect(controllerOf(cost).allocate([treeOf([0.9, 0.3, 0.3, 0.05, 0.04])], one, 1, 1, 60)).toBe(3);
    expect(controllerOf(cost).allocate([treeOf([0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])], one, 1, 1, 60)).toBe(7);
  });

  it("drafts nothing where it does not pay, overhead included", () => {
    const cost = knownCostOf({ 1: 100, 2: 200, 8: 800 });
    expect(controllerOf(cost).allocate([treeOf([0.9, 0.5])], one, 1, 1, 60)).toBe(0);
    const flat = knownCostOf({ 1: 100, 8: 110 });
    expect(controllerOf(flat).allocate([treeOf([0.3])], one, 1, 1, 60)).toBe(1);
    expect(controllerOf(flat, 4, 60, 50).allocate([treeOf([0.3])], one, 1, 1, 60)).toBe(0);
  });

  it("gives the nodes to the slots with the highest marginal gain", () => {
    const cost = costOf({ 2: 100, 5: 110, 6: 500 });
    const controller = controllerOf(cost);
    const trees = [treeOf([0.5, 0.1]), treeOf([0.9, 0.8, 0.1])];
    expect(controller.allocate(trees, Int32Array.of(3, 1), 2, 2, 60)).toBe(3);
    expect([...controller.counts.subarray(0, 2)]).toEqual([1, 2]);
  });

  it("keeps to the most nodes of a step", () => {
    const cost = costOf({ 1: 100, 64: 101 });
    expect(controllerOf(cost).allocate([treeOf(Array(30).fill(0.9))], one, 1, 1, 12)).toBe(12);
  });

  /** Asks a slot, whose asks cost `ask` plain steps, until it sleeps `times` times; returns the asks before each sleep, and the sleeps. */
  function asksToSleep(
    controller: Controller,
    ask: number,
    times: number,
  ): { asks: number[]; sleeps: number[] } {
    const asks: number[] = [];
    const sleeps: number[] = [];
    const plain = controller.cost.us(1);
    for (let n = 1; sleeps.length < times; ) {
      if (controller.sleeping(0)) {
        controller.tick(0);
        continue;
      }
      const sleep = controller.sleepAfter(0, 0);
      if (sleep > 0) {
        sleeps.push(sleep);
        asks.push(n);
        n = 0;
      }
      n++;
      controller.observe(stepOf(1, 0, 1, plain, ask * plain, 1));
      controller.account(0, 1, 1, stepOf(1, 0, 1, plain, ask * plain));
    }
    return { asks, sleeps };
  }

  it("sleeps once asking has cost more than a step or two, longer each time a probe finds nothing, and wakes when drafts pay", () => {
    const controller = controllerOf(costOf({ 1: 100, 8: 800 }), 1, 60, 10);
    controller.reset(0);
    const { asks, sleeps } = asksToSleep(controller, 0.4, 5);
    expect(asks[0] * 0.4).toBeLessThan(2.5);
    expect(asks.slice(1)).toEqual([1, 1, 1, 1]);
    for (let i = 1; i < sleeps.length; i++) expect(sleeps[i]).toBeGreaterThan(sleeps[i - 1]);
    expect(controller.asleep).toBe(1);
    while (controller.sleeping(0)) controller.tick(0);
    expect(controller.sleepAfter(0, 5)).toBe(0);
    expect(controller.asleep).toBe(0);
    expect(controller.sleepAfter(0, 0)).toBe(0);
  });

  it("asks the longer the less asking costs", () => {
    const first = (ask: number) => {
      const controller = controllerOf(costOf({ 1: 100, 8: 800 }), 1, 60, 100 * ask);
      controller.reset(0);
      return asksToSleep(controller, ask, 1).asks[0];
    };
    expect(first(0.4)).toBeLessThan(6);
    expect(first(0.01)).toBeGreaterThan(100);
  });

  it("probes the more often the less asking costs", () => {
    const last = (ask: number) => {
      const controller = controllerOf(costOf({ 1: 100, 8: 800 }), 1, 60, 100 * ask);
      controller.reset(0);
      return asksToSleep(controller, ask, 8).sleeps.at(-1) ?? 0;
    };
    expect(last(0.5)).toBeGreaterThan(70);
    expect(last(0.05)).toBeLessThan(15);
  });

  it("costs a text without anything to draft less than 2 % in all, even where asking is dear", () => {
    const controller = controllerOf(costOf({ 1: 100, 8: 800 }), 1, 60, 10);
    controller.reset(0);
    const ask = 0.3;
    let lost = 0;
    for (let step = 0; step < 300; step++) {
      if (controller.sleeping(0)) {
        controller.tick(0);
        continue;
      }
      if (controller.sleepAfter(0, 0) > 0) continue;
      lost += ask;
      controller.observe(stepOf(1, 0, 1, 100, ask * 100, 1));
      controller.account(0, 1, 1, stepOf(1, 0, 1, 100, ask * 100));
    }
    expect(lost).toBeLessThan(0.02 * 300);
  });

  it("sleeps where nodes are drafted that cost more than they bring", () => {
    const controller = controllerOf(costOf({ 1: 100, 2: 150 }), 1, 60, 5);
    controller.reset(0);
    let steps = 0;
    while (!controller.overdrawn(0) && steps < 100) {
      expect(controller.sleepAfter(0, 1)).toBe(0);
      steps++;
      controller.account(0, steps % 4 === 0 ? 2 : 1, 1, stepOf(1, 1, 2, 150, 5));
    }
    expect(steps).toBeLessThan(12);
    expect(controller.sleepAfter(0, 0)).toBeGreaterThan(0);
  });

  it("stays awake while drafts earn more than the asks between them cost", () => {
    const controller = controllerOf(costOf({ 1: 100, 4: 130 }), 1, 60, 5);
    controller.reset(0);
    for (let step = 0; step < 500; step++) {
      const drafts = step % 6 === 0;
      expect(controller.sleepAfter(0, drafts ? 3 : 0)).toBe(0);
      controller.account(
        0,
        drafts ? 3 : 1,
        1,
        stepOf(1, drafts ? 3 : 0, drafts ? 4 : 1, drafts ? 130 : 100, 10),
      );
    }
  });

  it("takes no prompt in a step for the price of a draft", () => {
    const controller = controllerOf(costOf({ 1: 100, 8: 140, 64: 3000 }), 1, 60, 5);
    controller.reset(0);
    for (let step = 0; step < 20; step++) controller.account(0, 2, 1, stepOf(1, 3, 400, 0, 5));
    expect(controller.overdrawn(0)).toBe(false);
  });

  it("knows that nodes cost nothing where each step is filled up to a width", () => {
    const cost = costOf({ 1: 100, 8: 400, 9: 800 });
    const controller = controllerOf(cost, 1, 60, 5);
    const tree = treeOf([0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]);
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(0);
    controller.observe(stepOf(1, 7, 8, 400, 0, 0));
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(7);
    controller.reset(0);
    for (let step = 0; step < 100; step++)
      controller.account(0, step % 8 === 0 ? 2 : 1, 1, stepOf(1, 7, 8, 400, 5));
    expect(controller.overdrawn(0)).toBe(false);
    controller.observe(stepOf(1, 0, 1, 100, 0, 0));
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(0);
  });

  it("shares a step's extra cost among the slots that were asked", () => {
    const controller = controllerOf(costOf({ 4: 100, 8: 140 }), 4, 60, 0);
    for (let slot = 0; slot < 2; slot++) controller.reset(slot);
    // one accepted node among four slots is worth a quarter of a step; two nodes of four cost a fifth of one
    for (let step = 0; step < 100; step++) controller.account(0, 2, 0.5, stepOf(4, 4, 8, 140, 0));
    expect(controller.overdrawn(0)).toBe(false);
    for (let step = 0; step < 100; step++) controller.account(1, 1, 0.5, stepOf(4, 4, 8, 140, 0));
    expect(controller.overdrawn(1)).toBe(true);
  });

  it("lends less when request after request lost, and all again once one earned", () => {
    const controller = controllerOf(costOf({ 1: 100, 8: 800 }), 1, 60, 10);
    const first = () => {
      controller.reset(0);
      return asksToSleep(controller, 0.1, 1).asks[0];
    };
    const most = first();
    for (let i = 0; i < 5; i++) first();
    expect(first()).toBeLessThan(most / 4);
    controller.reset(0);
    for (let step = 0; step < 20; step++) controller.account(0, 3, 1, stepOf(1, 2, 3, 110, 5));
    expect(first()).toBe(most);
  });

  it("asks more of a probe than of a slot that is awake", () => {
    const cost = costOf({ 1: 1000, 2: 1060 });
    const controller = controllerOf(cost, 1, 60, 0);
    controller.reset(0);
    const tree = treeOf([0.1]);
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(1);
    while (controller.sleepAfter(0, 0) === 0) controller.account(0, 1, 1, stepOf(1, 0, 1, 1300, 0));
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(0);
  });

  it("stops drafting for a slot whose promises are not kept", () => {
    const controller = controllerOf(costOf({ 1: 100, 2: 130 }));
    controller.reset(0);
    const tree = treeOf([0.6]);
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(1);
    for (let i = 0; i < 200; i++) controller.settle(0, 0.6, 0.05);
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(0);
    controller.reset(0);
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(1);
  });

  it("comes near the best rate soon, however wrong the table", () => {
    const sizes = [1, 2, 3, 4, 6, 8, 12, 16];
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.3, max: 6, noNaN: true }), { minLength: 8, maxLength: 8 }),
        fc.double({ min: 0.02, max: 0.4, noNaN: true }),
        fc.integer(),
        (wrong, slope, seed) => {
          const truth = (n: number) => 5000 * (1 + slope * (n - 1));
          const random = new Random(seed);
          const cost = new CostModel(
            Int32Array.from(sizes),
            Float32Array.from(sizes.map((n, i) => truth(n) * wrong[i])),
            16,
          );
          const controller = new Controller(1, 15, cost, 300, random);
          let tokens = 0;
          let us = 0;
          let bestTokens = 0;
          let bestUs = 0;
          for (let step = 0; step < 600; step++) {
            const chain = Array.from(
              { length: 15 },
              (_, i) => (0.2 + 0.7 * random.next()) ** (0.3 + i * 0.4),
            ).sort((a, b) => b - a);
            const expected = (n: number) => 1 + chain.slice(0, n).reduce((a, b) => a + b, 0);
            let best = 0;
            for (let n = 1; n <= 15; n++)
              if (expected(n) / (truth(n + 1) + 300) > expected(best) / (truth(best + 1) + 300)) best = n;
            let n = 0;
            let asked = 0;
            if (cost.wantsPlain(1)) cost.askedPlain(1);
            else {
              asked = 1;
              n = controller.allocate([treeOf(chain)], one, 1, 1, 15);
            }
            const decodeUs = truth(n + 1) * (0.97 + 0.06 * random.next());
            controller.observe(stepOf(1, n, n + 1, decodeUs, asked * 300, asked));
            if (step < 100) continue;
            tokens += expected(n);
            us += truth(n + 1) + 300;
            bestTokens += expected(best);
            bestUs += truth(best + 1) + 300;
          }
          expect(tokens / us).toBeGreaterThan((0.9 * bestTokens) / bestUs);
        },
      ),
      { numRuns: 60 },
    );
  });
});

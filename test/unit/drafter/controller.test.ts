import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { Controller } from "../../../src/drafter/controller.ts";
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

function controllerOf(cost: CostModel, nSlots = 4, maxNodes = 60, overheadUs = 0): Controller {
  return new Controller(nSlots, maxNodes, cost, overheadUs, new Random(1));
}

describe("overhead", () => {
  const cost = () => costOf({ 1: 3000, 2: 3100, 8: 3600 });
  const nodes = (controller: Controller) =>
    controller.allocate([treeOf([0.2, 0.1])], Int32Array.of(0), 1, 1, 60);

  it("is what the engine measures: where asking costs more than a draft gains, there is none", () => {
    const controller = controllerOf(cost(), 1, 60, 150);
    expect(nodes(controller)).toBeGreaterThan(0);
    for (let i = 0; i < 200; i++) controller.observeOverhead(900);
    expect(nodes(controller)).toBe(0);
    for (let i = 0; i < 300; i++) controller.observeOverhead(50);
    expect(nodes(controller)).toBeGreaterThan(0);
  });

  it("is not upset by one hiccup, nor by steps that did not ask", () => {
    const controller = controllerOf(cost(), 1, 60, 150);
    controller.observeOverhead(1e9);
    for (let i = 0; i < 1000; i++) controller.observeOverhead(0);
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
    const own = cost.us(8) / 200;
    const other = cost.us(1) / 100;
    expect(own).toBeGreaterThan(1.3);
    expect(other).toBeGreaterThan(1.02);
    expect(other).toBeLessThan(own);
    for (let i = 0; i < 300; i++) cost.observe(8, 300);
    expect(cost.us(8)).toBeCloseTo(300, 0);
  });

  it("is not upset by one outlier, nor by what cannot be a measurement", () => {
    const cost = costOf({ 1: 100, 8: 200 });
    cost.observe(8, 1e9);
    expect(cost.us(8)).toBeLessThan(220);
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
    const gaps: number[] = [];
    for (let since = 0; gaps.length < 3; since++) {
      if (cost.wantsPlain) {
        gaps.push(since);
        since = 0;
        cost.observe(1, 100);
      }
      cost.observe(8, 200);
    }
    for (let i = 1; i < gaps.length; i++) expect(gaps[i]).toBeGreaterThan(1.5 * gaps[i - 1]);
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
        const cost = costOf(points);
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
    const cost = costOf({ 1: 100, 2: 200, 8: 800 });
    expect(controllerOf(cost).allocate([treeOf([0.9, 0.5])], one, 1, 1, 60)).toBe(0);
    const flat = costOf({ 1: 100, 8: 110 });
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

  it("sleeps after idle asks, longer each time a probe finds nothing, and wakes when drafts pay", () => {
    const controller = controllerOf(costOf({ 1: 100, 8: 800 }));
    controller.reset(0);
    const sleeps: number[] = [];
    let asks = 0;
    while (sleeps.length < 4) {
      if (controller.sleeping(0)) {
        controller.tick(0);
        continue;
      }
      asks++;
      const sleep = controller.sleepAfter(0, 0);
      if (sleep > 0) sleeps.push(sleep);
    }
    expect(asks).toBeLessThan(24);
    for (let i = 1; i < sleeps.length; i++) expect(sleeps[i]).toBeGreaterThan(sleeps[i - 1]);
    expect(controller.asleep).toBe(1);
    while (controller.sleeping(0)) controller.tick(0);
    expect(controller.sleepAfter(0, 5)).toBe(0);
    expect(controller.asleep).toBe(0);
    expect(controller.sleepAfter(0, 0)).toBe(0);
  });

  it("loses patience sooner when request after request never drafted, and regains it", () => {
    const controller = controllerOf(costOf({ 1: 100, 8: 800 }));
    const asksToSleep = () => {
      controller.reset(0);
      let asks = 1;
      while (controller.sleepAfter(0, 0) === 0) asks++;
      return asks;
    };
    const first = asksToSleep();
    for (let i = 0; i < 5; i++) asksToSleep();
    expect(asksToSleep()).toBeLessThan(first / 4);
    controller.sleepAfter(0, 3);
    expect(asksToSleep()).toBe(first);
  });

  it("asks more of a probe than of a slot that is awake", () => {
    const cost = costOf({ 1: 1000, 2: 1060 });
    const controller = controllerOf(cost);
    controller.reset(0);
    const tree = treeOf([0.1]);
    expect(controller.allocate([tree], one, 1, 1, 60)).toBe(1);
    while (controller.sleepAfter(0, 0) === 0);
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
});

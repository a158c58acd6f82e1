import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { BestFirst } from "../../../src/drafter/best-first.ts";
import { Mcts } from "../../../src/drafter/mcts.ts";
import { growChain } from "../../../src/drafter/search.ts";
import { bestSum, describeSearch, newTree, SyntheticExpander, sumOf } from "./search-contract.ts";

describeSearch("best-first", () => new BestFirst(64));
describeSearch("best-first with little hope", () => new BestFirst(64, 0.6));
describeSearch("PUCT", () => new Mcts(64));
describeSearch("PUCT with much exploration", () => new Mcts(64, { exploration: 4, effort: 3 }));
describeSearch("PUCT without exploration", () => new Mcts(64, { exploration: 0, effort: 1 }));

const seeds = fc.integer();
const sizes = fc.integer({ min: 1, max: 40 });

describe("BestFirst", () => {
  it("finds the tree with the largest sum of path probabilities", () => {
    fc.assert(
      fc.property(seeds, sizes, (seed, nodes) => {
        const tree = newTree();
        new BestFirst(64).grow(tree, new SyntheticExpander(seed), { nodes, depth: 8, floor: 0 });
        expect(sumOf(tree)).toBeCloseTo(bestSum(seed, nodes, 8), 4);
      }),
      { numRuns: 100 },
    );
  });
});

describe("BestFirst with hope below 1", () => {
  it("expands fewer nodes and still finds nearly the best tree", () => {
    const spent = [0, 0];
    const share = [0, 0];
    for (let seed = 0; seed < 100; seed++) {
      for (const [i, hope] of [1, 0.6].entries()) {
        const tree = newTree();
        const expander = new SyntheticExpander(seed);
        new BestFirst(64, hope).grow(tree, expander, { nodes: 16, depth: 8, floor: 0 });
        spent[i] += expander.expansions;
        share[i] += sumOf(tree) / Math.max(bestSum(seed, 16, 8), 1e-9);
      }
    }
    expect(spent[1]).toBeLessThan(0.8 * spent[0]);
    expect(share[1]).toBeGreaterThan(0.97 * share[0]);
  });
});

describe("Mcts", () => {
  const grown = (seed: number, nodes: number, exploration: number, effort: number) => {
    const tree = newTree();
    new Mcts(64, { exploration, effort }).grow(tree, new SyntheticExpander(seed), {
      nodes,
      depth: 8,
      floor: 0,
    });
    return sumOf(tree);
  };

  it("without exploration finds the best tree with one iteration per node", () => {
    fc.assert(
      fc.property(seeds, sizes, (seed, nodes) => {
        expect(grown(seed, nodes, 0, 1)).toBeCloseTo(bestSum(seed, nodes, 8), 4);
      }),
      { numRuns: 100 },
    );
  });

  it("converges to the best tree with growing effort, however much it explores", () => {
    let last = 0;
    for (const effort of [1, 3, 18]) {
      let share = 0;
      for (let seed = 0; seed < 60; seed++) {
        const best = bestSum(seed, 20, 8);
        share += best > 0 ? grown(seed, 20, 1, effort) / best : 1;
      }
      share /= 60;
      expect(share).toBeGreaterThanOrEqual(last);
      last = share;
    }
    expect(last).toBeGreaterThan(0.999);
  });

  it("expands one cell per iteration", () => {
    const tree = newTree();
    const expander = new SyntheticExpander(3);
    new Mcts(64, { effort: 2 }).grow(tree, expander, { nodes: 10, depth: 64, floor: 0 });
    expect(expander.expansions).toBeLessThanOrEqual(21);
  });
});

describe("growChain", () => {
  it("gives a chain of the likeliest children, no longer than nodes and depth allow", () => {
    fc.assert(
      fc.property(seeds, sizes, fc.integer({ min: 1, max: 6 }), (seed, nodes, depth) => {
        const tree = newTree();
        growChain(tree, new SyntheticExpander(seed), { nodes, depth, floor: 0.01 });
        expect(tree.size).toBeLessThanOrEqual(Math.min(nodes, depth));
        const tokens = new Int32Array(tree.size);
        const parents = new Int32Array(tree.size);
        tree.write(tree.size, tokens, parents);
        for (let i = 0; i < tree.size; i++) {
          expect(parents[i]).toBe(i - 1);
          const cell = tree.order[i];
          expect(cell).toBe(tree.first[tree.parent[cell]]);
          expect(tree.path[cell]).toBeGreaterThanOrEqual(0.01);
        }
      }),
      { numRuns: 100 },
    );
  });
});

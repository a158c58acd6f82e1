/** What every tree search must keep to, as one suite. A synthetic expander stands for the prior. */
import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { DraftTree } from "../../../src/drafter/draft-tree.ts";
import { Random } from "../../../src/drafter/random.ts";
import type { Expander, TreeSearch } from "../../../src/drafter/search.ts";

const VOCAB = 1000;
const MAX_NODES = 64;
export const MAX_CHILDREN = 5;

/** The same continuations for the same path, drawn from a seed: 0 … 5 children with falling priors. */
export class SyntheticExpander implements Expander {
  readonly seed: number;
  expansions = 0;

  constructor(seed: number) {
    this.seed = seed;
  }

  expand(tree: DraftTree, cell: number): void {
    this.expansions++;
    let h = this.seed;
    for (let at = cell; at >= 0; at = tree.parent[at]) h = Math.imul(h ^ tree.token[at], 0x9e3779b1) + 17;
    const random = new Random(h);
    const n = random.below(MAX_CHILDREN + 1);
    let left = 1;
    for (let i = 0; i < n; i++) {
      const p = left * (0.3 + 0.5 * random.next());
      const prior = i > 0 ? Math.min(p, tree.prior[tree.cells - 1]) : p;
      tree.addChild(cell, ((h >>> 8) % 100) + i * 100, prior);
      left -= prior;
    }
  }
}

export function newTree(): DraftTree {
  const tree = new DraftTree(MAX_NODES, MAX_CHILDREN, 20 * MAX_NODES);
  tree.reset(1);
  return tree;
}

/** Sum of the path probabilities of the best tree of n nodes, found by trying every frontier node at each pick. */
export function bestSum(seed: number, nodes: number, depth: number): number {
  const tree = newTree();
  const expander = new SyntheticExpander(seed);
  expander.expand(tree, 0);
  const taken = new Set<number>();
  let sum = 0;
  while (taken.size < nodes) {
    let best = -1;
    for (let cell = 1; cell < tree.cells; cell++) {
      if (!taken.has(cell) && (best < 0 || tree.path[cell] > tree.path[best])) best = cell;
    }
    if (best < 0) break;
    taken.add(best);
    sum += tree.path[best];
    if (tree.depth[best] < depth) expander.expand(tree, best);
  }
  return sum;
}

export function sumOf(tree: DraftTree): number {
  let sum = 0;
  for (let i = 0; i < tree.size; i++) sum += tree.path[tree.order[i]];
  return sum;
}

export function describeSearch(name: string, create: () => TreeSearch): void {
  describe(`${name} keeps the contract of a search`, () => {
    const seeds = fc.integer();
    const sizes = fc.integer({ min: 1, max: MAX_NODES });
    const depths = fc.integer({ min: 1, max: 12 });

    it("gives valid trees within budget, depth and floor", () => {
      const search = create();
      fc.assert(
        fc.property(
          seeds,
          sizes,
          depths,
          fc.double({ min: 0, max: 0.5, noNaN: true }),
          (seed, nodes, depth, floor) => {
            const tree = newTree();
            search.grow(tree, new SyntheticExpander(seed), { nodes, depth, floor });
            expect(tree.size).toBeLessThanOrEqual(nodes);
            const tokens = new Int32Array(tree.size);
            const parents = new Int32Array(tree.size);
            tree.write(tree.size, tokens, parents);
            const siblings = new Set<string>();
            for (let i = 0; i < tree.size; i++) {
              const cell = tree.order[i];
              expect(parents[i]).toBeGreaterThanOrEqual(-1);
              expect(parents[i]).toBeLessThan(i);
              expect(tokens[i]).toBeGreaterThanOrEqual(0);
              expect(tokens[i]).toBeLessThan(VOCAB);
              siblings.add(`${parents[i]}:${tokens[i]}`);
              expect(tree.depth[cell]).toBeLessThanOrEqual(depth);
              expect(tree.path[cell]).toBeGreaterThanOrEqual(floor);
              if (i > 0) expect(tree.path[cell]).toBeLessThanOrEqual(tree.path[tree.order[i - 1]]);
            }
            expect(siblings.size).toBe(tree.size);
          },
        ),
        { numRuns: 200 },
      );
    });

    it("spends its whole budget while there are continuations", () => {
      const endless: Expander = {
        expand(tree, cell) {
          tree.addChild(cell, 7, 0.6);
          tree.addChild(cell, 8, 0.4);
        },
      };
      for (const nodes of [1, 2, 7, 64]) {
        const tree = newTree();
        create().grow(tree, endless, { nodes, depth: 16, floor: 0 });
        expect(tree.size).toBe(nodes);
      }
    });

    it("gives no nodes where nothing can follow", () => {
      const tree = newTree();
      create().grow(tree, { expand: () => {} }, { nodes: 7, depth: 4, floor: 0 });
      expect(tree.size).toBe(0);
    });

    it("gives the same tree for the same input, also after other searches", () => {
      const search = create();
      fc.assert(
        fc.property(seeds, sizes, (seed, nodes) => {
          const limits = { nodes, depth: 8, floor: 0 };
          const used = newTree();
          const fresh = newTree();
          search.grow(used, new SyntheticExpander(seed), limits);
          create().grow(fresh, new SyntheticExpander(seed), limits);
          expect(used.order.subarray(0, used.size)).toEqual(fresh.order.subarray(0, fresh.size));
        }),
        { numRuns: 50 },
      );
    });
  });
}

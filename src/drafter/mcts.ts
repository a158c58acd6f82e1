/**
 * Monte-Carlo tree search with PUCT over the mixed prior (ADED, arXiv 2407.12021, section 3.2, with another value).
 *
 * Each iteration walks down from the root and adds one node. At a node s it takes the child a with the largest
 *
 *     R(s,a) + c * P(a|s) * sqrt(N(s)) / (1 + N(s,a))
 *
 * P is the calibrated prior; N(s) counts the nodes added below s so far, N(s,a) those at and below a; R(s,a) is the value: the gain in
 * expected accepted tokens, counted from s, of the best node that can still be added at or below a,
 *
 *     R(s,a) = P(a|s)                     while a has not been added,
 *     R(s,a) = P(a|s) * max_b R(a,b)      after that; 0 below a leaf that has no continuation.
 *
 * With c = 0 an iteration adds exactly the node with the highest path probability. With c > 0 the second term, which grows without bound for a child that is never
 * taken, spends some iterations elsewhere, so every reachable node is added in the end. After `effort` iterations per wanted node the draft
 * is cut: of everything priced, the nodes with the largest path probabilities. A path never gets likelier by growing, so that set is a tree,
 * and with growing effort it converges to the tree that maximises the sum of path probabilities for the node budget.
 * (The value is not the mean of playouts and an unvisited child is not infinite: with both, the authors' own retriever searches nearly breadth-first.)
 */
import { BestFirst } from "./best-first.ts";
import type { DraftTree } from "./draft-tree.ts";
import type { Expander, SearchLimits, TreeSearch } from "./search.ts";

export interface MctsOptions {
  /** c, the weight of exploration. @default 0.1 */
  exploration?: number;
  /** Iterations per wanted node, at least 1. @default 1.25 */
  effort?: number;
}

/** Iterations that a search over trees of `maxNodes` nodes runs: one expansion each, and the root's. */
export function mctsExpansions(maxNodes: number, effort = 1.25): number {
  return Math.ceil(maxNodes * effort) + 1;
}

export class Mcts implements TreeSearch {
  private readonly exploration: number;
  private readonly effort: number;
  private readonly extraction: BestFirst;
  /** N by cell: nodes added at and below it. */
  private visits: Int32Array;
  /** max_b R(cell, b): best gain left below a cell that was added. */
  private left: Float32Array;
  /** By cell: how many of its children were added. Children are added in order of falling prior, since both terms fall with it. */
  private added: Uint16Array;

  /** @param maxNodes most nodes of a tree */
  constructor(maxNodes: number, options: MctsOptions = {}) {
    this.exploration = options.exploration ?? 0.1;
    this.effort = Math.max(1, options.effort ?? 1.25);
    this.extraction = new BestFirst(maxNodes);
    this.visits = new Int32Array(0);
    this.left = new Float32Array(0);
    this.added = new Uint16Array(0);
  }

  grow(tree: DraftTree, expander: Expander, limits: SearchLimits): void {
    if (this.visits.length < tree.capacity) {
      this.visits = new Int32Array(tree.capacity);
      this.left = new Float32Array(tree.capacity);
      this.added = new Uint16Array(tree.capacity);
    }
    this.add(tree, expander, 0, limits);
    const iterations = Math.ceil(limits.nodes * this.effort);
    for (let i = 0; i < iterations; i++) {
      if (this.left[0] < limits.floor) break;
      const cell = this.select(tree);
      if (cell < 0) break;
      this.add(tree, expander, cell, limits);
      this.backUp(tree, cell);
    }
    this.extraction.extract(tree, limits.nodes, limits.floor);
  }

  /** The node to add: walks down by PUCT until a child that was not added. -1 when nothing is left. */
  private select(tree: DraftTree): number {
    const { visits, left, added } = this;
    let cell = 0;
    for (;;) {
      const root = this.exploration * Math.sqrt(visits[cell]);
      const first = tree.first[cell];
      const known = added[cell];
      let best = -1;
      let bestScore = 0;
      for (let child = first; child < first + known; child++) {
        if (left[child] === 0) continue;
        const prior = tree.prior[child];
        const score = prior * left[child] + (root * prior) / (1 + visits[child]);
        if (score > bestScore) {
          bestScore = score;
          best = child;
        }
      }
      if (known < tree.children[cell]) {
        const fresh = first + known;
        if (tree.prior[fresh] * (1 + root) > bestScore) {
          added[cell]++;
          return fresh;
        }
      }
      if (best < 0) return -1;
      cell = best;
    }
  }

  private add(tree: DraftTree, expander: Expander, cell: number, limits: SearchLimits): void {
    this.visits[cell] = cell === 0 ? 0 : 1;
    this.added[cell] = 0;
    const room = tree.depth[cell] < limits.depth;
    if (room) expander.expand(tree, cell);
    this.left[cell] = tree.children[cell] > 0 ? tree.prior[tree.first[cell]] : 0;
  }

  /** Counts the new node in its ancestors and renews what is left below them. */
  private backUp(tree: DraftTree, cell: number): void {
    const { visits, left, added } = this;
    for (let at = tree.parent[cell]; at >= 0; at = tree.parent[at]) {
      visits[at]++;
      const first = tree.first[at];
      const known = added[at];
      let best = known < tree.children[at] ? tree.prior[first + known] : 0;
      for (let child = first; child < first + known; child++) {
        const gain = tree.prior[child] * left[child];
        if (gain > best) best = gain;
      }
      left[at] = best;
    }
  }
}

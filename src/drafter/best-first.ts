/**
 * Greedy best-first expansion: always picks the frontier node with the highest path probability. A child's path is never likelier than its
 * parent's, so the first n picks are the tree of n nodes with the largest sum of path probabilities, for every n.
 */
import type { DraftTree } from "./draft-tree.ts";
import type { Expander, SearchLimits, TreeSearch } from "./search.ts";

export class BestFirst implements TreeSearch {
  /** A binary heap of cells, likeliest path on top. Siblings wait behind their likelier sibling, so it stays small. */
  private readonly heap: Int32Array;
  private size = 0;

  /** @param maxNodes most nodes of a tree */
  constructor(maxNodes: number) {
    this.heap = new Int32Array(2 * maxNodes + 2);
  }

  grow(tree: DraftTree, expander: Expander, limits: SearchLimits): void {
    this.size = 0;
    expander.expand(tree, 0);
    this.pushChildren(tree, 0, limits.floor);
    while (this.size > 0 && tree.size < limits.nodes) {
      const cell = this.pop(tree);
      tree.pick(cell);
      const sibling = cell + 1;
      const parent = tree.parent[cell];
      if (sibling < tree.first[parent] + tree.children[parent]) this.push(tree, sibling, limits.floor);
      if (tree.size < limits.nodes && tree.depth[cell] < limits.depth) {
        if (tree.first[cell] === 0) expander.expand(tree, cell);
        this.pushChildren(tree, cell, limits.floor);
      }
    }
  }

  /** Picks from what is expanded already, expanding nothing: the best tree of `nodes` nodes in the arena. */
  extract(tree: DraftTree, nodes: number, floor: number): void {
    this.size = 0;
    this.pushChildren(tree, 0, floor);
    while (this.size > 0 && tree.size < nodes) {
      const cell = this.pop(tree);
      tree.pick(cell);
      const sibling = cell + 1;
      const parent = tree.parent[cell];
      if (sibling < tree.first[parent] + tree.children[parent]) this.push(tree, sibling, floor);
      this.pushChildren(tree, cell, floor);
    }
  }

  private pushChildren(tree: DraftTree, cell: number, floor: number): void {
    if (tree.children[cell] > 0) this.push(tree, tree.first[cell], floor);
  }

  private push(tree: DraftTree, cell: number, floor: number): void {
    const { heap } = this;
    const path = tree.path[cell];
    if (!(path >= floor)) return;
    let at = this.size++;
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (tree.path[heap[up]] >= path) break;
      heap[at] = heap[up];
      at = up;
    }
    heap[at] = cell;
  }

  private pop(tree: DraftTree): number {
    const { heap } = this;
    const top = heap[0];
    const last = heap[--this.size];
    const path = tree.path[last];
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= this.size) break;
      if (down + 1 < this.size && tree.path[heap[down + 1]] > tree.path[heap[down]]) down++;
      if (tree.path[heap[down]] <= path) break;
      heap[at] = heap[down];
      at = down;
    }
    heap[at] = last;
    return top;
  }
}

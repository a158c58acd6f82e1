/**
 * Greedy best-first expansion: always picks the frontier node with the highest path probability. A child's path is never likelier than its
 * parent's, so the first n picks are the tree of n nodes with the largest sum of path probabilities, for every n.
 *
 * Most picked nodes have no child that is drafted, and pricing the children is what takes the time. So a picked node waits for its expansion
 * as if its likeliest child had `hope` times its probability: with 1 the tree is the best one, with less nodes near the end of the budget
 * are not expanded in vain, and a child likelier than that may come too late.
 */
import type { DraftTree } from "./draft-tree.ts";
import type { Expander, SearchLimits, TreeSearch } from "./search.ts";

export class BestFirst implements TreeSearch {
  /**
   * A binary heap, the highest key on top: cells to pick, by their path probability, and ~cell of picked ones whose children are
   * not priced yet. Siblings wait behind their likelier sibling, so it stays small.
   */
  private readonly heap: Int32Array;
  private readonly keys: Float32Array;
  private readonly hope: number;
  private size = 0;

  /**
   * @param maxNodes most nodes of a tree
   * @param hope probability that the likeliest child of a node is taken to have until it is known, 0 … 1
   */
  constructor(maxNodes: number, hope = 1) {
    this.heap = new Int32Array(2 * maxNodes + 2);
    this.keys = new Float32Array(2 * maxNodes + 2);
    this.hope = hope;
  }

  grow(tree: DraftTree, expander: Expander, limits: SearchLimits): void {
    const { nodes, depth, floor } = limits;
    this.size = 0;
    expander.expand(tree, 0);
    this.pushChildren(tree, 0, floor);
    while (this.size > 0 && tree.size < nodes) {
      const entry = this.pop();
      if (entry < 0) {
        expander.expand(tree, ~entry);
        this.pushChildren(tree, ~entry, floor);
        continue;
      }
      this.pick(tree, entry, floor);
      if (tree.depth[entry] < depth) this.push(~entry, tree.path[entry] * this.hope, floor);
    }
    if (this.hope < 1) sortPicks(tree);
  }

  /** Picks from what is expanded already, expanding nothing: the best tree of `nodes` nodes in the arena. */
  extract(tree: DraftTree, nodes: number, floor: number): void {
    this.size = 0;
    this.pushChildren(tree, 0, floor);
    while (this.size > 0 && tree.size < nodes) {
      const cell = this.pop();
      this.pick(tree, cell, floor);
      this.pushChildren(tree, cell, floor);
    }
  }

  private pick(tree: DraftTree, cell: number, floor: number): void {
    tree.pick(cell);
    const sibling = cell + 1;
    const parent = tree.parent[cell];
    if (sibling < tree.first[parent] + tree.children[parent]) this.push(sibling, tree.path[sibling], floor);
  }

  private pushChildren(tree: DraftTree, cell: number, floor: number): void {
    const first = tree.first[cell];
    if (tree.children[cell] > 0) this.push(first, tree.path[first], floor);
  }

  private push(entry: number, key: number, floor: number): void {
    const { heap, keys } = this;
    if (!(key >= floor)) return;
    let at = this.size++;
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (keys[up] >= key) break;
      heap[at] = heap[up];
      keys[at] = keys[up];
      at = up;
    }
    heap[at] = entry;
    keys[at] = key;
  }

  private pop(): number {
    const { heap, keys } = this;
    const top = heap[0];
    const last = heap[--this.size];
    const key = keys[this.size];
    let at = 0;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= this.size) break;
      if (down + 1 < this.size && keys[down + 1] > keys[down]) down++;
      if (keys[down] <= key) break;
      heap[at] = heap[down];
      keys[at] = keys[down];
      at = down;
    }
    heap[at] = last;
    keys[at] = key;
    return top;
  }
}

/** Puts picks in the order of falling path probability: nearly sorted already. Of equal ones the parent was picked first, and stays so. */
function sortPicks({ order, path, position, size }: DraftTree): void {
  for (let i = 1; i < size; i++) {
    const cell = order[i];
    let j = i - 1;
    while (j >= 0 && path[order[j]] < path[cell]) {
      order[j + 1] = order[j];
      j--;
    }
    order[j + 1] = cell;
  }
  for (let i = 0; i < size; i++) position[order[i]] = i;
}

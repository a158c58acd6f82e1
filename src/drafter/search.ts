/** What a search over draft trees is, and the chain that every search grows where the engine takes no branches. */
import type { DraftTree } from "./draft-tree.ts";

/** Prices the continuations of a cell. */
export interface Expander {
  /** Adds the children of `cell`, likeliest first, their priors summing to at most 1. May add none. */
  expand(tree: DraftTree, cell: number): void;
}

export interface SearchLimits {
  /** Nodes wanted, at most `tree.maxNodes`. */
  nodes: number;
  /** Deepest level; the root's children are level 1. */
  depth: number;
  /** Nodes whose path probability lies below this are not wanted. */
  floor: number;
}

export interface TreeSearch {
  /**
   * Picks up to `limits.nodes` nodes in the order of falling path probability. The tree holds only its root before.
   * Must allocate nothing.
   */
  grow(tree: DraftTree, expander: Expander, limits: SearchLimits): void;
}

/** Picks the likeliest child of the node before, again and again. */
export function growChain(tree: DraftTree, expander: Expander, limits: SearchLimits): void {
  let cell = 0;
  const most = Math.min(limits.nodes, limits.depth);
  while (tree.size < most) {
    expander.expand(tree, cell);
    if (tree.children[cell] === 0) return;
    cell = tree.first[cell];
    if (tree.path[cell] < limits.floor) return;
    tree.pick(cell);
  }
}

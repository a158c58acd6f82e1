/**
 * The arena in which a search grows one slot's draft tree. Every cell is a token after its parent's path: cell 0 is the
 * root (the last emitted token), the children of an expanded cell are consecutive and sorted by probability. The cells that were picked,
 * in order, are the draft: parents come before children, and each prefix of the order is a tree itself.
 */
export class DraftTree {
  /** Most nodes that can be picked. */
  readonly maxNodes: number;
  /** Cells in use. */
  cells = 0;
  readonly token: Int32Array;
  readonly parent: Int32Array;
  readonly depth: Uint16Array;
  /** Probability that the target model takes this token, given its parent's path. */
  readonly prior: Float32Array;
  /** Product of the priors from the root: the expected gain in accepted tokens if the cell is drafted. */
  readonly path: Float32Array;
  /** First child, or 0 while not expanded. */
  readonly first: Int32Array;
  readonly children: Uint16Array;
  /** Position of a picked cell in `order`, -1 for the others. */
  readonly position: Int32Array;
  /** The picked cells. */
  readonly order: Int32Array;
  size = 0;

  /**
   * @param maxNodes most nodes that a draft can have
   * @param maxChildren most children of one cell
   * @param maxExpansions how many cells a search may expand
   */
  constructor(maxNodes: number, maxChildren: number, maxExpansions: number) {
    const cells = 1 + maxExpansions * maxChildren;
    this.maxNodes = maxNodes;
    this.token = new Int32Array(cells);
    this.parent = new Int32Array(cells);
    this.depth = new Uint16Array(cells);
    this.prior = new Float32Array(cells);
    this.path = new Float32Array(cells);
    this.first = new Int32Array(cells);
    this.children = new Uint16Array(cells);
    this.position = new Int32Array(cells);
    this.order = new Int32Array(maxNodes);
  }

  get capacity(): number {
    return this.token.length;
  }

  /** Starts over with the root alone. */
  reset(root: number): void {
    this.cells = 1;
    this.size = 0;
    this.token[0] = root;
    this.parent[0] = -1;
    this.depth[0] = 0;
    this.prior[0] = 1;
    this.path[0] = 1;
    this.first[0] = 0;
    this.children[0] = 0;
    this.position[0] = -1;
  }

  /** Adds a child below a cell that is being expanded. Children of one cell are added in a row, likeliest first. */
  addChild(parent: number, token: number, prior: number): void {
    const cell = this.cells++;
    this.token[cell] = token;
    this.parent[cell] = parent;
    this.depth[cell] = this.depth[parent] + 1;
    this.prior[cell] = prior;
    this.path[cell] = this.path[parent] * this.prior[cell];
    this.first[cell] = 0;
    this.children[cell] = 0;
    this.position[cell] = -1;
    if (this.children[parent]++ === 0) this.first[parent] = cell;
  }

  pick(cell: number): void {
    this.position[cell] = this.size;
    this.order[this.size++] = cell;
  }

  /** The child of a cell with this token, or -1. */
  childWith(cell: number, token: number): number {
    const first = this.first[cell];
    const end = first + this.children[cell];
    for (let child = first; child < end; child++) if (this.token[child] === token) return child;
    return -1;
  }

  /** Writes the first `n` picked nodes: tokens, and parents as indices into them (-1 = child of the root). */
  write(n: number, tokens: Int32Array, parents: Int32Array): void {
    for (let i = 0; i < n; i++) {
      const cell = this.order[i];
      tokens[i] = this.token[cell];
      const parent = this.parent[cell];
      parents[i] = parent === 0 ? -1 : this.position[parent];
    }
  }
}

/**
 * What the model answered at nodes that the text did not take: the rejected nodes of draft trees. A trie of tokens that branch off a
 * text, with the k likeliest successors of each.
 */
const FIRST = 64;
/** Tokens per parent in a key: any vocabulary is smaller. */
const SPAN = 2 ** 21;

export class OffPath {
  readonly k: number;
  count = 0;
  private readonly index = new Map<number, number>();
  private parents: Int32Array = new Int32Array(FIRST);
  private tokens: Int32Array = new Int32Array(FIRST);
  private heldIds: Int32Array;
  private heldProbs: Float32Array;

  /** @param k successors held per node */
  constructor(k: number) {
    this.k = k;
    this.heldIds = new Int32Array(FIRST * k);
    this.heldProbs = new Float32Array(FIRST * k);
  }

  /**
   * The node of `token` below a parent, -1 if it is not known.
   *
   * @param parent a position of the text (the context is the prompt and that many tokens), or ~node for a node held here
   */
  find(parent: number, token: number): number {
    return this.index.get(keyOf(parent, token)) ?? -1;
  }

  /** Adds a node, or returns the one that is there. `ids` and `probs` hold k successors from `offset` on. */
  add(
    parent: number,
    token: number,
    ids: ArrayLike<number>,
    probs: ArrayLike<number>,
    offset: number,
  ): number {
    const key = keyOf(parent, token);
    const known = this.index.get(key);
    if (known !== undefined) return known;
    const node = this.count++;
    if (node === this.parents.length) this.grow();
    this.parents[node] = parent;
    this.tokens[node] = token;
    for (let j = 0; j < this.k; j++) {
      this.heldIds[node * this.k + j] = ids[offset + j];
      this.heldProbs[node * this.k + j] = probs[offset + j];
    }
    this.index.set(key, node);
    return node;
  }

  parent(node: number): number {
    return this.parents[node];
  }

  token(node: number): number {
    return this.tokens[node];
  }

  get ids(): Int32Array {
    return this.heldIds;
  }

  get probs(): Float32Array {
    return this.heldProbs;
  }

  private grow(): void {
    const size = this.parents.length * 2;
    this.parents = extended(this.parents, size);
    this.tokens = extended(this.tokens, size);
    this.heldIds = extended(this.heldIds, size * this.k);
    const probs = new Float32Array(size * this.k);
    probs.set(this.heldProbs);
    this.heldProbs = probs;
  }
}

function keyOf(parent: number, token: number): number {
  // positions are even, nodes odd
  return (parent >= 0 ? 2 * parent : 2 * ~parent + 1) * SPAN + token;
}

function extended(array: Int32Array, size: number): Int32Array {
  const grown = new Int32Array(size);
  grown.set(array);
  return grown;
}

/** A draft tree that a rule builds node by node; a token that is there already is not added twice. */
export class RuleTree {
  readonly tokens: number[] = [];
  readonly parents: number[] = [];
  private readonly index = new Map<number, number>();

  get size(): number {
    return this.tokens.length;
  }

  clear(): void {
    this.tokens.length = 0;
    this.parents.length = 0;
    this.index.clear();
  }

  /** The child of a node (-1: the root) with this token, added if it is new. */
  child(parent: number, token: number): number {
    const key = keyOf(parent, token);
    const known = this.index.get(key);
    if (known !== undefined) return known;
    const node = this.tokens.length;
    this.tokens.push(token);
    this.parents.push(parent);
    this.index.set(key, node);
    return node;
  }

  has(parent: number, token: number): boolean {
    return this.index.has(keyOf(parent, token));
  }

  /** Adds tokens one below the other until the tree has `most` nodes. */
  chain(tokens: Iterable<number>, most: number): void {
    let node = -1;
    for (const token of tokens) {
      if (this.tokens.length >= most && !this.has(node, token)) return;
      node = this.child(node, token);
    }
  }

  /** The first `n` nodes as a draft. */
  first(n: number): { tokens: Int32Array; parents: Int32Array } {
    return {
      tokens: Int32Array.from(this.tokens.slice(0, n)),
      parents: Int32Array.from(this.parents.slice(0, n)),
    };
  }
}

function keyOf(parent: number, token: number): number {
  return (parent + 1) * 2 ** 21 + token;
}

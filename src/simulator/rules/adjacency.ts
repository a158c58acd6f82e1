/** The table of Token Recycling: for every token the model's likeliest successors when it last stood at a verified node, right or wrong. */
import type { VerifiedSlot } from "../../drafter/draft.ts";

export class Adjacency {
  private readonly width: number;
  private readonly rows = new Map<number, Int32Array>();

  /** @param width successors per token */
  constructor(width: number) {
    this.width = width;
  }

  /** Overwrites the row of every verified node of which something is known. */
  learn(verified: VerifiedSlot): void {
    const { nodes, ids, probs, k } = verified;
    for (let i = 0; i < nodes.length; i++) {
      if (!(probs[i * k] > 0)) continue;
      this.rows.set(nodes[i], ids.slice(i * k, i * k + Math.min(this.width, k)));
    }
  }

  /** Likeliest successors, likeliest first; undefined for a token that was never verified. */
  after(token: number): Int32Array | undefined {
    return this.rows.get(token);
  }
}

/**
 * RACER (arXiv 2604.14885): matches at all lengths up to 10-grams in this request's prompt and output, ranked by length and frequency, take
 * their places in the tree first; the rest is filled level by level from a table of each token's last top-8, whose breadth halves with the rank.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import { Adjacency } from "./adjacency.ts";
import { OccurrenceIndex, type Occurrences } from "./occurrences.ts";
import type { Rule } from "./rule.ts";
import type { RuleTree } from "./rule-tree.ts";

const GRAM = 10;
const BREADTH = 8;

export interface RacerOptions {
  /** Share of the nodes that matches may take. @default 0.5 */
  share?: number;
}

export class Racer implements Rule {
  private readonly share: number;
  private readonly table = new Adjacency(BREADTH);
  private text = new OccurrenceIndex();

  constructor(options: RacerOptions = {}) {
    this.share = options.share ?? 0.5;
  }

  begin(prompt: Int32Array): void {
    this.text = new OccurrenceIndex();
    for (const token of prompt) this.text.append(token);
  }

  observe(verified: VerifiedSlot): void {
    this.table.learn(verified);
    for (const token of verified.accepted) this.text.append(token);
  }

  draft(tree: RuleTree, nodes: number): void {
    const { text } = this;
    const last = text.tokens.slice(-GRAM).reverse();
    const most = Math.ceil(nodes * this.share);
    const matches = text.matches(last, GRAM - 1);
    for (let n = matches.length; n > 0 && tree.size < most; n--)
      this.retrieve(tree, matches[n - 1], GRAM - n, most);
    this.fill(tree, nodes, last[0]);
  }

  end(): void {}

  /** Adds what followed a match, the most frequent first, at most `depth` deep. */
  private retrieve(tree: RuleTree, at: Occurrences, depth: number, most: number): void {
    const open = [{ parent: -1, at, depth }];
    while (open.length > 0) {
      open.sort((a, b) => b.at.length - a.at.length);
      const { parent, at: from, depth: left } = open.shift()!;
      const next = [...this.text.continuations(from)].sort((a, b) => b[1].length - a[1].length);
      for (const [token, to] of next) {
        if (tree.size >= most) return;
        const node = tree.child(parent, token);
        if (left > 1) open.push({ parent: node, at: to, depth: left - 1 });
      }
    }
  }

  /** Level by level: the root gets 8 successors, a node's child of rank r half as many as its parent, halved again with every rank. */
  private fill(tree: RuleTree, nodes: number, root: number): void {
    let level = [{ node: -1, token: root, breadth: BREADTH }];
    while (level.length > 0 && tree.size < nodes) {
      const below: typeof level = [];
      for (const { node, token, breadth } of level) {
        const row = this.table.after(token);
        if (row === undefined) continue;
        for (let rank = 0; rank < breadth && rank < row.length; rank++) {
          if (tree.size >= nodes) return;
          const child = tree.child(node, row[rank]);
          const share = breadth >> (rank + 1);
          if (share > 0) below.push({ node: child, token: row[rank], breadth: share });
        }
      }
      level = below;
    }
  }
}

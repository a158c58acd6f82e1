/**
 * RACER (arXiv 2604.14885, and the authors' program for what the paper leaves open): a trie of the 10-grams of recent text. All its strings that
 * continue a match of at least 2 tokens are candidates, the most frequent first, shallow ones before deep ones. What room they leave is filled level by
 * level from a table of each token's last top-8: 8 children for the root, then 4, 2, 1, 1, … by rank, below them the same halving by rank, at least 1.
 *
 * Where this differs it is to the rule's advantage: strings that match at several lengths take one place instead of several, and n-grams are
 * known as soon as they are written.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import { Adjacency } from "./adjacency.ts";
import { OccurrenceIndex, type Occurrences } from "./occurrences.ts";
import type { Rule } from "./rule.ts";
import type { RuleTree } from "./rule-tree.ts";

const GRAM = 10;
const LEAST_MATCH = 2;
const BREADTH = 8;
/** Stands between two texts; no token. */
const GAP = -1;

export interface RacerOptions {
  /** Share of the nodes that matches may take. @default 1, as in the authors' program */
  share?: number;
  /** Earlier tokens that are still known: about what a trie of 10,000 nodes, the program's default, holds. @default 1500 */
  memory?: number;
}

export class Racer implements Rule {
  private readonly share: number;
  private readonly memory: number;
  private readonly table = new Adjacency(BREADTH);
  private readonly text = new OccurrenceIndex();

  constructor(options: RacerOptions = {}) {
    this.share = options.share ?? 1;
    this.memory = options.memory ?? 1500;
  }

  begin(prompt: Int32Array): void {
    this.text.append(GAP);
    for (const token of prompt) this.text.append(token);
  }

  observe(verified: VerifiedSlot): void {
    this.table.learn(verified);
    for (const token of verified.accepted) this.text.append(token);
  }

  draft(tree: RuleTree, nodes: number): void {
    const { tokens } = this.text;
    this.retrieve(tree, Math.ceil(nodes * this.share));
    this.fill(tree, nodes, tokens[tokens.length - 1]);
  }

  end(): void {}

  private retrieve(tree: RuleTree, most: number): void {
    const { text } = this;
    const last = lastTokens(text.tokens, GRAM - 1);
    const from = text.tokens.length - this.memory;
    const open: { parent: number; token: number; at: Occurrences; depth: number }[] = [];
    const offer = (parent: number, at: Occurrences, depth: number): void => {
      if (depth > GRAM) return;
      for (const [token, to] of text.continuations(at)) open.push({ parent, token, at: to, depth });
    };
    // what follows a long match follows each shorter one too, but there the trie goes less deep
    const matches = text.matches(last, GRAM - 1).map((at) => at.filter((end) => end > from));
    for (let n = LEAST_MATCH; n <= matches.length; n++) offer(-1, matches[n - 1], n + 1);
    while (open.length > 0) {
      let best = 0;
      for (let i = 1; i < open.length; i++) {
        const more = open[i].at.length - open[best].at.length;
        if (more > 0 || (more === 0 && open[i].depth < open[best].depth)) best = i;
      }
      const { parent, token, at, depth } = open[best];
      open[best] = open[open.length - 1];
      open.pop();
      if (tree.size >= most && !tree.has(parent, token)) continue;
      offer(tree.child(parent, token), at, depth + 1);
    }
  }

  private fill(tree: RuleTree, nodes: number, root: number): void {
    const queue = [{ node: -1, token: root, breadth: BREADTH, depth: 0 }];
    // a chain of known tokens could go on for ever
    for (let head = 0; head < queue.length && head < 4 * nodes && tree.size < nodes; head++) {
      const { node, token, breadth, depth } = queue[head];
      const row = this.table.after(token);
      if (row === undefined) continue;
      let below = depth === 1 ? breadth : breadth >> 1;
      for (let rank = 0; rank < breadth && rank < row.length; rank++) {
        if (tree.size >= nodes) return;
        const child = tree.child(node, row[rank]);
        queue.push({ node: child, token: row[rank], breadth: Math.max(1, below), depth: depth + 1 });
        below >>= 1;
      }
    }
  }
}

/** Newest first, up to a gap. */
function lastTokens(tokens: readonly number[], most: number): number[] {
  const last: number[] = [];
  for (let at = tokens.length - 1; at >= 0 && last.length < most && tokens[at] !== GAP; at--) {
    last.push(tokens[at]);
  }
  return last;
}

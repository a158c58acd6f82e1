/**
 * SuffixDecoding (arXiv 2411.04975): one count tree over the earlier outputs, one over this request's prompt and output. For each length m of a
 * matching suffix a tree of at most m tokens is grown from the match, the likeliest path first, down to a path probability of 0.1; of all m and both
 * trees the draft with the largest sum of path probabilities is taken.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import { OccurrenceIndex, type Occurrences } from "./occurrences.ts";
import type { Rule } from "./rule.ts";
import { RuleTree } from "./rule-tree.ts";

const DEEPEST = 64;

export interface SuffixDecodingOptions {
  /** Draft tokens per token of the match. @default 1 */
  factor?: number;
  /** Least path probability. @default 0.1 */
  floor?: number;
}

export class SuffixDecoding implements Rule {
  private readonly factor: number;
  private readonly floor: number;
  private readonly earlier = new OccurrenceIndex();
  private own = new OccurrenceIndex();
  private output: number[] = [];

  constructor(options: SuffixDecodingOptions = {}) {
    this.factor = options.factor ?? 1;
    this.floor = options.floor ?? 0.1;
  }

  begin(prompt: Int32Array): void {
    this.own = new OccurrenceIndex();
    this.output = [];
    for (const token of prompt) this.own.append(token);
  }

  observe(verified: VerifiedSlot): void {
    for (const token of verified.accepted) {
      this.own.append(token);
      this.output.push(token);
    }
  }

  draft(tree: RuleTree, nodes: number): void {
    const last = this.own.tokens.slice(-DEEPEST).reverse();
    let best: Grown | undefined;
    for (const index of [this.earlier, this.own]) {
      for (const [i, at] of index.matches(last, DEEPEST).entries()) {
        const most = Math.min(nodes, Math.floor((i + 1) * this.factor));
        const grown = grow(index, at, most, this.floor);
        // of equals the longer match
        if (best === undefined || grown.sum >= best.sum) best = grown;
      }
    }
    if (best === undefined) return;
    for (const [i, token] of best.tree.tokens.entries()) tree.child(best.tree.parents[i], token);
  }

  end(): void {
    for (const token of this.output) this.earlier.append(token);
    this.earlier.append(-1);
  }
}

interface Grown {
  tree: RuleTree;
  /** Sum of the path probabilities. */
  sum: number;
}

/** The likeliest continuations of a match by their counts. */
function grow(index: OccurrenceIndex, at: Occurrences, most: number, floor: number): Grown {
  const tree = new RuleTree();
  let sum = 0;
  const frontier: { parent: number; token: number; path: number; at: Occurrences }[] = [];
  const open = (parent: number, path: number, from: Occurrences): void => {
    for (const [token, to] of index.continuations(from)) {
      const p = (path * to.length) / from.length;
      if (p >= floor) frontier.push({ parent, token, path: p, at: to });
    }
  };
  open(-1, 1, at);
  while (frontier.length > 0 && tree.size < most) {
    let best = 0;
    for (let i = 1; i < frontier.length; i++) if (frontier[i].path > frontier[best].path) best = i;
    const { parent, token, path, at: there } = frontier[best];
    frontier[best] = frontier[frontier.length - 1];
    frontier.pop();
    sum += path;
    open(tree.child(parent, token), path, there);
  }
  return { tree, sum };
}

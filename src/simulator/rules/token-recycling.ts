/**
 * Token Recycling (arXiv 2408.08696): a table of each token's last top-8, and a static tree over it. Of the tree the paper tells the size (80 nodes, six levels);
 * here it is the best static tree of any size for the rates at which ranks come true, which are measured on the traces themselves.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import type { Trace } from "../trace.ts";
import { Adjacency } from "./adjacency.ts";
import type { Rule } from "./rule.ts";
import type { RuleTree } from "./rule-tree.ts";

export const TABLE_WIDTH = 8;
const LEVELS = 6;

export class TokenRecycling implements Rule {
  readonly table = new Adjacency(TABLE_WIDTH);
  private readonly rates: readonly number[];
  private root = -1;

  /** @param rates how often the token at each rank of a row comes next (rankRates) */
  constructor(rates: readonly number[]) {
    this.rates = rates;
  }

  begin(prompt: Int32Array): void {
    this.root = prompt[prompt.length - 1];
  }

  observe(verified: VerifiedSlot): void {
    this.table.learn(verified);
    this.root = verified.accepted[verified.accepted.length - 1];
  }

  draft(tree: RuleTree, nodes: number): void {
    growStatic(tree, nodes, this.root, this.table, this.rates);
  }

  end(): void {}
}

interface Place {
  node: number;
  token: number;
  rank: number;
  level: number;
  /** Product of the rates down to here. */
  rate: number;
}

/** Fills the tree up to `nodes` nodes with the places of the static tree in the order of their worth, as far as the table knows tokens for them. */
export function growStatic(
  tree: RuleTree,
  nodes: number,
  root: number,
  table: Adjacency,
  rates: readonly number[],
): void {
  // the best place is the child of rank 0 of an added node, or the next sibling of one: a small frontier
  const frontier: Place[] = [];
  const open = (parent: number, token: number, rank: number, level: number, above: number): void => {
    const row = table.after(token);
    if (row === undefined || rank >= row.length || level > LEVELS) return;
    frontier.push({ node: parent, token, rank, level, rate: above * rates[rank] });
  };
  open(-1, root, 0, 1, 1);
  while (frontier.length > 0 && tree.size < nodes) {
    let best = 0;
    for (let i = 1; i < frontier.length; i++) if (frontier[i].rate > frontier[best].rate) best = i;
    const { node, token, rank, level, rate } = frontier[best];
    frontier[best] = frontier[frontier.length - 1];
    frontier.pop();
    const row = table.after(token);
    if (row === undefined) continue;
    const added = tree.child(node, row[rank]);
    open(node, token, rank + 1, level, rate / rates[rank]);
    open(added, row[rank], 0, level + 1, rate);
  }
}

/** How often the next token is the one at each rank of the last token's row, over all texts: what the static tree is built for. */
export function rankRates(traces: readonly Trace[]): number[] {
  const hits = new Array<number>(TABLE_WIDTH).fill(1);
  let total = TABLE_WIDTH;
  const rows = new Map<number, Int32Array>();
  for (const { prompt, tokens, k, ids } of traces) {
    let last = prompt[prompt.length - 1];
    for (let at = 0; at < tokens.length; at++) {
      const rank = rows.get(last)?.indexOf(tokens[at]) ?? -1;
      if (rank >= 0) hits[rank]++;
      total++;
      rows.set(last, ids.subarray(at * k, at * k + Math.min(TABLE_WIDTH, k)));
      last = tokens[at];
    }
  }
  return hits.map((n) => n / total);
}

/**
 * LogitSpec (arXiv 2507.01449): the likeliest tokens at the last verified position are guesses for the token after the next one. The draft is what
 * followed the last tokens earlier in the text, and below the root each guess with what followed (last token, guess) earlier, found by
 * 3-grams and then 2-grams: 4 tokens for the first ranks, then 3, then 1.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import { continuation } from "./prompt-lookup.ts";
import type { Rule } from "./rule.ts";
import type { RuleTree } from "./rule-tree.ts";

const LONGEST_QUERY = 3;
/** Guesses per 64 nodes that get 4 tokens, and 3. */
const FIRST_RANKS = 8;
const MIDDLE_RANKS = 16;
const GUESSES = 64;

export class LogitSpec implements Rule {
  private text: number[] = [];
  private guesses: Int32Array = new Int32Array(0);

  begin(prompt: Int32Array): void {
    this.text = [...prompt];
    this.guesses = new Int32Array(0);
  }

  observe(verified: VerifiedSlot): void {
    this.text.push(...verified.accepted);
    const { path, ids, k } = verified;
    const last = path[path.length - 1];
    this.guesses = ids.slice(last * k, last * k + Math.min(GUESSES, k));
  }

  draft(tree: RuleTree, nodes: number): void {
    const { text, guesses } = this;
    const from = continuation(text, LONGEST_QUERY);
    if (from >= 0) tree.chain(text.slice(from, from + Math.ceil(nodes / 4)), nodes);
    for (const [rank, guess] of guesses.entries()) {
      if (tree.size >= nodes) return;
      const length = rank < FIRST_RANKS ? 4 : rank < MIDDLE_RANKS ? 3 : 1;
      text.push(guess);
      const after = continuationOfAtLeast(text, 2);
      text.pop();
      const tail = after < 0 ? [] : text.slice(after, after + length - 1);
      tree.chain([guess, ...tail], nodes);
    }
  }

  end(): void {}
}

/** As `continuation`, for matches of at least `least` tokens. */
function continuationOfAtLeast(text: readonly number[], least: number): number {
  const at = continuation(text, LONGEST_QUERY);
  for (let back = 1; back <= least; back++) {
    if (at < back || text[at - back] !== text[text.length - back]) return -1;
  }
  return at;
}

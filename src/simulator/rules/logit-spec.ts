/**
 * LogitSpec (arXiv 2507.01449, and the authors' program for what the paper leaves open): the likeliest tokens at the position that gave the last token
 * are guesses for the token after it. The draft is what followed the last 3, 2 or 1 tokens when they stood in the text last, at most 6 tokens;
 * then for each guess, likeliest first, the guess with what followed (last two tokens, guess), or fewer of them, last: 4 tokens in all for the
 * first 8 guesses, 3 for the next 24, 1 for the others.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import type { Rule } from "./rule.ts";
import type { RuleTree } from "./rule-tree.ts";

const LONGEST_QUERY = 3;
const LONGEST_ANSWER = 6;
const FIRST_RANKS = 8;
const MIDDLE_RANKS = 32;
const GUESSES = 64;
const SPAN = 2 ** 21;

export class LogitSpec implements Rule {
  private text: number[] = [];
  /** For each length of a query, where it ended last with a token after it. */
  private pools: Map<string | number, number>[] = [];
  private guesses: Int32Array = new Int32Array(0);

  begin(prompt: Int32Array): void {
    this.text = [];
    this.pools = Array.from({ length: LONGEST_QUERY }, () => new Map<string | number, number>());
    this.guesses = new Int32Array(0);
    for (const token of prompt) this.take(token);
  }

  observe(verified: VerifiedSlot): void {
    for (const token of verified.accepted) this.take(token);
    const { path, ids, k } = verified;
    const last = path[path.length - 1];
    this.guesses = ids.slice(last * k, last * k + Math.min(GUESSES, k));
  }

  draft(tree: RuleTree, nodes: number): void {
    const { text, guesses } = this;
    const last = text.slice(-LONGEST_QUERY);
    tree.chain(this.after(last, LONGEST_ANSWER), nodes);
    for (const [rank, guess] of guesses.entries()) {
      if (tree.size >= nodes) return;
      if (guess === text[text.length - 1] || guess < 0) continue;
      const length = rank <= FIRST_RANKS ? 4 : rank <= MIDDLE_RANKS ? 3 : 1;
      tree.chain([guess, ...this.after([...last, guess], length - 1)], nodes);
    }
  }

  end(): void {}

  /** Notes what the tokens before the new one are followed by. */
  private take(token: number): void {
    const { text } = this;
    for (let n = 1; n <= LONGEST_QUERY && n <= text.length; n++) {
      this.pools[n - 1].set(keyOf(text, n), text.length);
    }
    text.push(token);
  }

  /** What followed the query's last tokens, as many of them as are known. */
  private after(query: readonly number[], most: number): number[] {
    for (let n = Math.min(LONGEST_QUERY, query.length); n > 0; n--) {
      const at = this.pools[n - 1].get(keyOf(query, n));
      if (at !== undefined) return this.text.slice(at, at + most);
    }
    return [];
  }
}

/** The last n tokens. */
function keyOf(text: readonly number[], n: number): string | number {
  const end = text.length;
  if (n === 1) return text[end - 1];
  if (n === 2) return text[end - 2] * SPAN + text[end - 1];
  return `${text[end - 3]} ${text[end - 2]} ${text[end - 1]}`;
}

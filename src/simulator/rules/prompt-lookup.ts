/**
 * Prompt lookup decoding (A. Saxena, 2023): where the last 3, 2 or 1 tokens stood first in the prompt and the output, the tokens that
 * followed are drafted as one chain.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import type { Rule } from "./rule.ts";
import type { RuleTree } from "./rule-tree.ts";

const LONGEST = 3;

export class PromptLookup implements Rule {
  private text: number[] = [];

  begin(prompt: Int32Array): void {
    this.text = [...prompt];
  }

  observe(verified: VerifiedSlot): void {
    this.text.push(...verified.accepted);
  }

  draft(tree: RuleTree, nodes: number): void {
    const from = continuation(this.text, LONGEST);
    if (from >= 0) tree.chain(this.text.slice(from, from + nodes), nodes);
  }

  end(): void {}
}

/** Position after the first occurrence of the text's last tokens, as many of them as possible up to `longest`; -1: none. */
export function continuation(text: readonly number[], longest: number): number {
  const end = text.length;
  for (let n = Math.min(longest, end - 1); n > 0; n--) {
    for (let at = 0; at + n < end; at++) {
      let same = 0;
      while (same < n && text[at + same] === text[end - n + same]) same++;
      if (same === n) return at + n;
    }
  }
  return -1;
}

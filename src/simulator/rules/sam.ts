/**
 * SAM-Decoding with Token Recycling (arXiv 2411.10666): if the longest repeated suffix of prompt and output, or the longest one that
 * earlier outputs hold (it counts 5 less), has at least 5 tokens, what followed its first occurrence is drafted as one chain of at most 40; otherwise
 * Token Recycling drafts. The earlier outputs are those of the replay: there is no corpus at a cold start.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import type { Rule } from "./rule.ts";
import type { RuleTree } from "./rule-tree.ts";
import { AutomatonMatch, SuffixAutomaton } from "./suffix-automaton.ts";
import { TokenRecycling } from "./token-recycling.ts";

const LEAST_MATCH = 5;
const STATIC_HANDICAP = 5;
const LONGEST_CHAIN = 40;
/** Stands between two outputs; no token. */
const GAP = -1;

export class SamDecoding implements Rule {
  private readonly recycling: TokenRecycling;
  private readonly earlier = new SuffixAutomaton();
  private own = new SuffixAutomaton();
  private match = new AutomatonMatch();
  private output: number[] = [];

  /** @param rates of Token Recycling */
  constructor(rates: readonly number[]) {
    this.recycling = new TokenRecycling(rates);
  }

  begin(prompt: Int32Array): void {
    this.recycling.begin(prompt);
    this.own = new SuffixAutomaton();
    this.match = new AutomatonMatch();
    this.output = [];
    for (const token of prompt) this.take(token);
  }

  observe(verified: VerifiedSlot): void {
    this.recycling.observe(verified);
    for (const token of verified.accepted) {
      this.take(token);
      this.output.push(token);
    }
  }

  draft(tree: RuleTree, nodes: number): void {
    const dynamic = this.own.repeated();
    const fixed = this.match.length - STATIC_HANDICAP;
    if (Math.max(dynamic.length, fixed) < LEAST_MATCH) {
      this.recycling.draft(tree, nodes);
      return;
    }
    const { tokens } = dynamic.length >= fixed ? this.own : this.earlier;
    const from = dynamic.length >= fixed ? dynamic.end : this.match.end;
    const chain = tokens.slice(from, from + Math.min(nodes, LONGEST_CHAIN));
    const gap = chain.indexOf(GAP);
    tree.chain(gap < 0 ? chain : chain.slice(0, gap), nodes);
  }

  end(): void {
    for (const token of this.output) this.earlier.append(token);
    this.earlier.append(GAP);
  }

  private take(token: number): void {
    this.own.append(token);
    this.earlier.advance(this.match, token);
  }
}

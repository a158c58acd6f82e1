/**
 * What a drafting rule is, and the drafter that any rule makes: always as many nodes as it is allowed, so that rules can be compared at
 * equal node budgets. The rules of others were written anew from their papers; each file names its own.
 */
import type {
  BeginRequest,
  Drafter,
  DrafterStats,
  SlotDraft,
  VerifiedSlot,
  VerifiedStep,
} from "../../drafter/draft.ts";
import { RuleTree } from "./rule-tree.ts";

export interface Rule {
  /** A request begins; its last prompt token is not drafted from yet. */
  begin(prompt: Int32Array): void;
  /** Learns from a step: `accepted` follows what was there before. */
  observe(verified: VerifiedSlot): void;
  /** Drafts up to `nodes` nodes into the empty tree. */
  draft(tree: RuleTree, nodes: number): void;
  end(): void;
}

/** One slot, one rule, a fixed number of nodes. */
export class RuleDrafter implements Drafter {
  private readonly rule: Rule;
  private readonly nodes: number;
  private readonly tree = new RuleTree();
  private steps = 0;
  private tokens = 0;

  /** @param nodes most nodes of a draft */
  constructor(rule: Rule, nodes: number) {
    this.rule = rule;
    this.nodes = nodes;
  }

  begin(request: BeginRequest): void {
    this.rule.begin(request.tokens);
  }

  observe(step: VerifiedStep): void {
    for (const verified of step.slots) {
      this.steps++;
      this.tokens += verified.accepted.length;
      this.rule.observe(verified);
    }
  }

  draft(step: VerifiedStep): readonly SlotDraft[] {
    const { slot, room } = step.slots[0];
    const { tree } = this;
    tree.clear();
    const most = Math.min(this.nodes, room);
    if (most > 0) this.rule.draft(tree, most);
    return [{ slot, sleep: 0, ...tree.first(most) }];
  }

  end(): void {
    this.rule.end();
  }

  stats(): DrafterStats {
    return {
      steps: this.steps,
      tokens: this.tokens,
      tokensPerStep: this.steps > 0 ? this.tokens / this.steps : 0,
      draftedNodes: 0,
      acceptedNodes: 0,
      matrix: { rows: 0, bytes: 0, limit: 0 },
      controller: { asleep: 0, nodes: this.tree.size },
      costUs: {},
    };
  }
}

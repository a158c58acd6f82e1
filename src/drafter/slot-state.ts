/** What the drafter knows of one slot: what it holds, the request that runs in it, the draft that is out. */
import type { SlotDraft } from "./draft.ts";
import { DraftTree } from "./draft-tree.ts";
import type { History } from "./history.ts";
import type { Learnt } from "./learnt.ts";
import { Evidence, MAX_CHILDREN, type PriorContext } from "./prior.ts";
import type { Scope } from "./scopes.ts";
import { SuffixIndex } from "./suffix-index.ts";
import type { TrigramMatrix } from "./trigram-matrix.ts";

const FORTUNE_RATE = 0.2;
export class SlotState implements PriorContext {
  readonly slot: number;
  /** Stays after a request ends: the next `begin` may keep part of it. */
  readonly suffix = new SuffixIndex();
  readonly tree: DraftTree;
  readonly evidence: Evidence;
  scope: Scope;
  /** Task id of the request that runs; -1 when none does. */
  id = -1;
  /** The request lets drafts in. */
  drafts = false;
  greedy = true;
  sharpness = 1;
  /** So far every token was the likeliest of the raw logits, so a rejected node's likeliest is what the model would have put there. */
  plainArgmax = false;
  /** The tree was grown for the step that is being decoded. */
  live = false;
  /** The engine asked for a draft for that step. */
  asked = false;
  /** Nodes sent, and the accepted nodes that their path probabilities promised. */
  sent = 0;
  promised = 0;
  readonly lastIds: Int32Array;
  readonly lastProbs: Float32Array;
  lastCount = 0;
  luck = 1;
  /** Running mean of accepted nodes per drafted step, 0 … 1 (3 and more count as 1). */
  private fortune = 0.5;
  /** Tokens of the prompt: the output starts there. */
  outputFrom = 0;
  private readonly tokens: Int32Array;
  private readonly parents: Int32Array;
  /** Answers by number of nodes, made once each: views on `tokens` and `parents`. */
  private readonly answers: (SlotDraft | undefined)[] = [];

  /**
   * @param maxNodes most nodes of a draft
   * @param maxExpansions cells that the search may expand per draft
   * @param width successors of the last position that are remembered
   */
  constructor(slot: number, scope: Scope, maxNodes: number, maxExpansions: number, width: number) {
    this.slot = slot;
    this.scope = scope;
    this.tree = new DraftTree(maxNodes, MAX_CHILDREN, maxExpansions);
    this.evidence = new Evidence(this.tree.capacity);
    this.lastIds = new Int32Array(width);
    this.lastProbs = new Float32Array(width);
    this.tokens = new Int32Array(maxNodes);
    this.parents = new Int32Array(maxNodes);
  }

  get matrix(): TrigramMatrix {
    return this.scope.matrix;
  }

  get learnt(): Learnt {
    return this.greedy ? this.scope.greedy : this.scope.sampled;
  }

  get history(): History {
    return this.scope.history;
  }

  /** A request begins; the suffix index holds its prompt. */
  restart(): void {
    this.live = false;
    this.asked = false;
    this.lastCount = 0;
    this.outputFrom = this.suffix.length;
    this.fortune = 0.5;
    this.luck = 1;
  }

  /** Adds the output to the scope's history. */
  rememberOutput(): void {
    this.history.add(this.suffix, this.outputFrom, this.suffix.length - this.outputFrom);
  }

  /** Counts how many nodes of a draft were accepted. */
  settle(accepted: number): void {
    this.fortune += (Math.min(1, accepted / 3) - this.fortune) * FORTUNE_RATE;
    this.luck = this.fortune < 0.2 ? 0 : this.fortune < 0.4 ? 1 : this.fortune < 0.65 ? 2 : 3;
  }

  /** The first `nodes` picked nodes as an answer to the engine. Valid until the slot's next call. */
  answer(nodes: number, sleep: number): SlotDraft {
    let answer = this.answers[nodes];
    if (answer === undefined) {
      answer = {
        slot: this.slot,
        tokens: this.tokens.subarray(0, nodes),
        parents: this.parents.subarray(0, nodes),
        sleep: 0,
      };
      this.answers[nodes] = answer;
    }
    this.tree.write(nodes, this.tokens, this.parents);
    answer.sleep = sleep;
    this.sent = nodes;
    this.promised = 0;
    for (let i = 0; i < nodes; i++) this.promised += this.tree.path[this.tree.order[i]];
    return answer;
  }
}

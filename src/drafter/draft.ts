/**
 * The drafter's contract: tokens and verified steps in, draft trees out. Drafting is pure: no socket, no HTTP, no clock
 * is known here. Everything in `drafter/` builds on these types; `link/` calls them.
 */

import type { CorpusFloor } from "../corpus/floor.ts";

/** What the engine's `hello` tells of the model (docs/protocol.md, 1.3). */
export interface EngineInfo {
  model: string;
  nVocab: number;
  vocabHash: string;
  nSlots: number;
  /** Most draft nodes in one step, over all slots together. */
  maxNodes: number;
  /** False: only chains may be drafted, at most `maxChain` long. */
  tree: boolean;
  maxChain: number;
  topK: number;
  /** Ascending numbers of tokens, and the µs that one forward pass of that many tokens takes. Same length. */
  costTokens: Int32Array;
  costUs: Float32Array;
  /** Undefined: the engine has not looked. */
  exactness?: Exactness;
}

/** Whether a batch gives the logits of decoding one by one (docs/protocol.md, 1.6). */
export interface Exactness {
  /** Numbers of tokens in a batch that were compared. */
  tested: number[];
  /** Those of them whose logits are the same to the last bit. */
  exact: number[];
  /** Logits closer than this are not decided by a batch; 0: the rule is off. */
  near_tie: number;
}

export interface SamplingInfo {
  greedy: boolean;
  temperature: number;
  grammar: boolean;
  /** False: this request runs plain. */
  draft: boolean;
}

export interface BeginRequest {
  slot: number;
  id: number;
  scope: string;
  /** The first `keep` tokens of what the slot held before stay; `tokens` follow. */
  keep: number;
  tokens: Int32Array;
  sampling: SamplingInfo;
}

/** What one decode step found out in one slot (docs/protocol.md, `step`). */
export interface VerifiedSlot {
  slot: number;
  /** Tokens emitted, oldest first, at least one. The last is the root of the next tree. */
  accepted: Int32Array;
  /** Tokens of the verified nodes; nodes[0] is the root. Length n. */
  nodes: Int32Array;
  /** Index into `nodes` of each node's parent, -1 for the root. Length n. */
  parents: Int32Array;
  /** Indices into `nodes` of the accepted nodes, root first. */
  path: Int32Array;
  /** Successors reported per node. */
  k: number;
  /** Likeliest successors of each node, likeliest first. Length n*k. */
  ids: Int32Array;
  /** Their probabilities. Length n*k. */
  probs: Float32Array;
  /** Most draft nodes that the slot can take in the next step. */
  room: number;
  /** False: a draft for this slot would be ignored. */
  draft: boolean;
}

export interface VerifiedStep {
  /** µs of the forward pass; 0 if it also evaluated prompt tokens. */
  decodeUs: number;
  /** Tokens in that forward pass. */
  nBatch: number;
  /** What asking for the draft before added to the engine's step, µs; 0 if it did not ask, or does not tell. @default 0 */
  spentUs?: number;
  slots: readonly VerifiedSlot[];
}

/** A draft tree for one slot: parents come before children, siblings differ. */
export interface SlotDraft {
  slot: number;
  /** Draft nodes. */
  tokens: Int32Array;
  /** Index into `tokens` of each node's parent, -1 = child of the root. Same length. */
  parents: Int32Array;
  /** The engine need not ask for this slot for that many steps (0: ask at the next). */
  sleep: number;
}

export interface DrafterStats {
  steps: number;
  tokens: number;
  tokensPerStep: number;
  draftedNodes: number;
  acceptedNodes: number;
  /** With the rows of the corpora, and what is kept for them while they are read. */
  matrix: { rows: number; bytes: number; limit: number };
  controller: { asleep: number; nodes: number };
  /** µs of one forward pass by number of tokens, as currently believed. */
  costUs: Record<string, number>;
  /** Draft nodes verified and accepted since the start, by depth and by source. */
  acceptance?: {
    /** Index 0 is depth 1. */
    by_depth: { drafted: number[]; accepted: number[] };
    by_source: Record<string, { drafted: number; accepted: number }>;
  };
}

/**
 * One drafter serves one model in one engine. It outlives a lost connection: every begin is then followed by an end
 * ("error"), and new begins come once the link is back. Calls come in the order of the frames. Never throws on the hot
 * path: no draft means a plain step.
 */
export interface Drafter {
  begin(request: BeginRequest): void;
  /** Learns from a step. */
  observe(step: VerifiedStep): void;
  /**
   * Trees for the slots of the step just observed that may draft; a slot that should run plain is left out or has no tokens.
   * The nodes of all trees together number at most `EngineInfo.maxNodes`. The arrays may be reused by the next call.
   */
  draft(step: VerifiedStep): readonly SlotDraft[];
  end(slot: number, id: number, reason: string): void;
  /** Puts corpora under what is learnt, at any time; undefined takes them away. False: there was no room. */
  useFloor?(floor: CorpusFloor | undefined): boolean;
  /** Forgets what a scope learnt; false if there is no such scope. */
  purge?(scope: string): boolean;
  /** Takes in a snapshot, before the first begin. A file that is not there is none; a damaged one is moved aside. */
  load?(file: string): { rows: number; bytes: number; damage?: { reason: string; aside: string } };
  /** Writes a snapshot in slices, and puts it in place once it is whole; resolves with its bytes. */
  save?(file: string): Promise<number>;
  stats(): DrafterStats;
}

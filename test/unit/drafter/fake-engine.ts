/**
 * An engine in miniature: a deterministic "model" with a known distribution after every context verifies drafts as the protocol has it and reports
 * steps. Checks every draft it is given.
 */
import { expect } from "@jest/globals";
import type {
  Drafter,
  EngineInfo,
  SamplingInfo,
  SlotDraft,
  VerifiedSlot,
  VerifiedStep,
} from "../../../src/drafter/draft.ts";

export const GREEDY: SamplingInfo = { greedy: true, temperature: 0, grammar: false, draft: true };

export function engineInfo(changes: Partial<EngineInfo> = {}): EngineInfo {
  return {
    model: "fake",
    nVocab: 500,
    vocabHash: "00000000000000aa",
    nSlots: 4,
    maxNodes: 64,
    tree: true,
    maxChain: 0,
    topK: 4,
    costTokens: Int32Array.of(1, 8, 16, 64),
    costUs: Float32Array.of(1000, 1100, 1500, 4000),
    ...changes,
  };
}

/** The k likeliest successors of a context, and their probabilities. */
export type Model = (context: readonly number[]) => { ids: number[]; probs: number[] };

/** A model whose text runs in a cycle of `period` tokens, certain to `certainty`. */
export function cyclic(period: number, certainty = 0.9, k = 4): Model {
  return (context) => {
    const next = (context[context.length - 1] + 1) % period;
    const ids = Array.from({ length: k }, (_, i) => (i === 0 ? next : period + ((next * 7 + i) % 100)));
    return { ids, probs: ids.map((_, i) => (i === 0 ? certainty : (1 - certainty) / k)) };
  };
}

interface Running {
  context: number[];
  left: number;
}

export class FakeEngine {
  readonly info: EngineInfo;
  /** Draft nodes per slot of the last step; slots without a draft are missing. */
  readonly lastDrafts = new Map<number, SlotDraft>();
  private readonly model: Model;
  private readonly drafter: Drafter;
  private readonly running = new Map<number, Running>();

  constructor(drafter: Drafter, info: EngineInfo, model: Model) {
    this.drafter = drafter;
    this.info = info;
    this.model = model;
  }

  begin(slot: number, prompt: readonly number[], left: number, sampling = GREEDY, scope = ""): void {
    this.running.set(slot, { context: [...prompt], left });
    this.lastDrafts.delete(slot);
    this.drafter.begin({ slot, id: slot, scope, keep: 0, tokens: Int32Array.from(prompt), sampling });
  }

  get busy(): boolean {
    return this.running.size > 0;
  }

  contextOf(slot: number): readonly number[] {
    return this.running.get(slot)?.context ?? [];
  }

  /** One decode step over all running slots; returns the tokens emitted. */
  step(): number {
    const slots: VerifiedSlot[] = [];
    let nBatch = 0;
    let emitted = 0;
    for (const [slot, running] of this.running) {
      const verified = this.verify(slot, running);
      slots.push(verified);
      nBatch += verified.nodes.length;
      emitted += verified.accepted.length;
    }
    const step: VerifiedStep = { decodeUs: costOf(this.info, nBatch), nBatch, slots };
    this.drafter.observe(step);
    for (const [slot, running] of this.running) {
      if (running.left > 0) continue;
      this.drafter.end(slot, slot, "limit");
      this.running.delete(slot);
    }
    const alive = { ...step, slots: slots.filter((s) => this.running.has(s.slot)) };
    const drafts = alive.slots.length > 0 ? this.drafter.draft(alive) : [];
    this.check(drafts, alive);
    this.lastDrafts.clear();
    for (const d of drafts) {
      this.lastDrafts.set(d.slot, { ...d, tokens: d.tokens.slice(), parents: d.parents.slice() });
    }
    return emitted;
  }

  private verify(slot: number, running: Running): VerifiedSlot {
    const draft = this.lastDrafts.get(slot);
    const nodes = [running.context[running.context.length - 1], ...(draft?.tokens ?? [])];
    const parents = [-1, ...Array.from(draft?.parents ?? [], (p) => p + 1)];
    const k = this.info.topK;
    const contexts: number[][] = [];
    const ids: number[] = [];
    const probs: number[] = [];
    for (let i = 0; i < nodes.length; i++) {
      contexts.push(i === 0 ? running.context : [...contexts[parents[i]], nodes[i]]);
      const top = this.model(contexts[i]);
      ids.push(...top.ids.slice(0, k));
      probs.push(...top.probs.slice(0, k));
    }
    const path = [0];
    const accepted: number[] = [];
    for (let at = 0; ; ) {
      accepted.push(ids[at * k]);
      const child = nodes.findIndex((token, i) => i > 0 && parents[i] === at && token === ids[at * k]);
      if (child < 0 || accepted.length === running.left) break;
      path.push(child);
      at = child;
    }
    running.context = [...running.context, ...accepted];
    running.left -= accepted.length;
    return {
      slot,
      accepted: Int32Array.from(accepted),
      nodes: Int32Array.from(nodes),
      parents: Int32Array.from(parents),
      path: Int32Array.from(path),
      k,
      ids: Int32Array.from(ids),
      probs: Float32Array.from(probs),
      room: running.left > 0 ? running.left - 1 : 0,
      draft: true,
    };
  }

  private check(drafts: readonly SlotDraft[], step: VerifiedStep): void {
    let total = 0;
    for (const draft of drafts) {
      const asked = step.slots.find((s) => s.slot === draft.slot);
      expect(asked).toBeDefined();
      expect(draft.tokens.length).toBe(draft.parents.length);
      expect(draft.tokens.length).toBeLessThanOrEqual(asked!.room);
      expect(draft.sleep).toBeGreaterThanOrEqual(0);
      expect(draft.sleep).toBeLessThanOrEqual(1024);
      const siblings = new Set<string>();
      for (let i = 0; i < draft.tokens.length; i++) {
        expect(draft.tokens[i]).toBeGreaterThanOrEqual(0);
        expect(draft.tokens[i]).toBeLessThan(this.info.nVocab);
        expect(draft.parents[i]).toBeGreaterThanOrEqual(-1);
        expect(draft.parents[i]).toBeLessThan(i);
        if (!this.info.tree) expect(draft.parents[i]).toBe(i - 1);
        siblings.add(`${draft.parents[i]}:${draft.tokens[i]}`);
      }
      expect(siblings.size).toBe(draft.tokens.length);
      if (!this.info.tree) expect(draft.tokens.length).toBeLessThanOrEqual(this.info.maxChain);
      total += draft.tokens.length;
    }
    expect(total).toBeLessThanOrEqual(this.info.maxNodes);
    expect(new Set(drafts.map((d) => d.slot)).size).toBe(drafts.length);
  }
}

function costOf(info: EngineInfo, n: number): number {
  const { costTokens, costUs } = info;
  for (let i = 1; i < costTokens.length; i++) {
    if (n > costTokens[i]) continue;
    const share = (n - costTokens[i - 1]) / (costTokens[i] - costTokens[i - 1]);
    return costUs[i - 1] + share * (costUs[i] - costUs[i - 1]);
  }
  return costUs[costUs.length - 1];
}

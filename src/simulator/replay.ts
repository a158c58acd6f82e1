/**
 * Replays recorded texts through a drafter, without an engine: each step drafts a tree, walks it along the recorded continuation and tells the
 * drafter what an engine would have told. Rejected nodes of which the trace knows nothing are told without successors, and counted.
 */
import type { Drafter, EngineInfo, SlotDraft, VerifiedSlot, VerifiedStep } from "../drafter/draft.ts";
import { Random } from "../drafter/random.ts";
import { type Trace, vocabularyOf } from "./trace.ts";

/** A rejected node of which the trace knows nothing. */
export interface MissingNode {
  trace: Trace;
  /** Tokens of the text that stand before the draft tree's first level. */
  position: number;
  /** From the tree's first level to the node. */
  path: number[];
}

export interface ReplayOptions {
  /** Successors told per node; at most what the trace holds. @default all */
  topK?: number;
  /** Tell of rejected nodes what the trace knows. @default true */
  offPath?: boolean;
  /** Told of every rejected node that the trace does not know. */
  onMissing?: (node: MissingNode) => void;
  /** Temperature that the drafter is told instead of the trace's own; the trace decides what is accepted. */
  temperature?: number;
  /** @default "" */
  scope?: string;
  /** µs that a forward pass of n tokens takes, told to the drafter. @default 0: not measured */
  cost?: (tokens: number) => number;
}

/** What one text took. */
export interface ReplayedText {
  id: string;
  category: string;
  /** Steps in which a draft could be made, and the tokens that they emitted. */
  steps: number;
  tokens: number;
}

export interface ReplayResult {
  /** Steps in which a draft could be made. */
  steps: number;
  /** Tokens that these steps emitted. */
  tokens: number;
  /** NaN without steps. */
  tokensPerStep: number;
  /** Draft nodes of these steps. */
  nodes: number;
  /** Rejected nodes, and how many of them the trace knew. */
  rejected: number;
  known: number;
  /** µs of draft() per step that drafted, in order, and of observe(). */
  draftUs: Float64Array;
  observeUs: Float64Array;
  /** µs of all forward passes by `cost`; 0 without it. */
  decodeUs: number;
  /** One by one, in the order of the replay. */
  texts: ReplayedText[];
}

/** What an engine with one slot and cheap forward passes would say of itself. */
export function replayEngine(
  traces: readonly Trace[],
  maxNodes: number,
  changes: Partial<EngineInfo> = {},
): EngineInfo {
  return {
    model: "replay",
    nVocab: changes.nVocab ?? vocabularyOf(traces),
    vocabHash: "0000000000000000",
    nSlots: 1,
    maxNodes,
    tree: true,
    maxChain: 0,
    topK: traces.reduce((most, { k }) => Math.max(most, k), 1),
    costTokens: Int32Array.of(1, 64),
    costUs: Float32Array.of(1000, 2000),
    ...changes,
  };
}

/** The texts in a random order that the seed decides. */
export function shuffled(traces: readonly Trace[], seed: number): Trace[] {
  return new Random(seed).shuffle([...traces]);
}

/** Replays the traces one after the other through one drafter, which keeps what it learns. */
export function replay(
  drafter: Drafter,
  traces: readonly Trace[],
  options: ReplayOptions = {},
): ReplayResult {
  const run = new Replay(drafter, options);
  for (const [index, trace] of traces.entries()) run.text(trace, index);
  return run.result();
}

/** Place of a node of which the trace knows nothing. */
const UNKNOWN = -(2 ** 31);

class Replay {
  private readonly drafter: Drafter;
  private readonly options: ReplayOptions;
  private readonly draftUs: number[] = [];
  private readonly observeUs: number[] = [];
  private steps = 0;
  private tokens = 0;
  private sent = 0;
  private rejected = 0;
  private known = 0;
  private decodeUs = 0;
  private readonly texts: ReplayedText[] = [];

  // The verified nodes of the step at hand. A place is a position of the text, ~node for what is known beside it, or UNKNOWN.
  private readonly nodes: number[] = [];
  private readonly parents: number[] = [];
  private readonly places: number[] = [];

  constructor(drafter: Drafter, options: ReplayOptions) {
    this.drafter = drafter;
    this.options = options;
  }

  result(): ReplayResult {
    const { steps, tokens, sent: nodes, rejected, known, decodeUs, texts } = this;
    const draftUs = Float64Array.from(this.draftUs);
    const observeUs = Float64Array.from(this.observeUs);
    return {
      steps,
      tokens,
      tokensPerStep: tokens / steps,
      nodes,
      rejected,
      known,
      draftUs,
      observeUs,
      decodeUs,
      texts,
    };
  }

  text(trace: Trace, id: number): void {
    const { drafter, options } = this;
    const temperature = options.temperature ?? trace.temperature;
    drafter.begin({
      slot: 0,
      id,
      scope: options.scope ?? "",
      keep: 0,
      tokens: trace.prompt.slice(),
      sampling: { greedy: temperature === 0, temperature, grammar: false, draft: true },
    });
    const { steps, tokens } = this;
    const output = trace.tokens;
    let at = 0; // output tokens emitted so far
    let accepted = this.verify(trace, undefined, 0, trace.prompt[trace.prompt.length - 1]);
    let sleep = 0;
    while (at < output.length) {
      const emitted = Math.min(accepted + 1, output.length - at);
      const step = this.stepOf(trace, output.subarray(at, at + emitted), output.length - at - emitted);
      const start = performance.now();
      drafter.observe(step);
      const observed = performance.now();
      this.observeUs.push((observed - start) * 1000);
      let draft: SlotDraft | undefined;
      if (sleep > 0) sleep--;
      else if (step.slots[0].room > 0) {
        draft = drafter.draft(step)[0];
        this.draftUs.push((performance.now() - observed) * 1000);
        sleep = draft?.sleep ?? 0;
      }
      if (at > 0) {
        this.steps++;
        this.tokens += emitted;
        this.decodeUs += step.decodeUs;
      }
      at += emitted;
      if (at < output.length) accepted = this.verify(trace, draft, at, output[at - 1]);
    }
    drafter.end(0, id, "limit");
    const { id: name, category } = trace;
    this.texts.push({ id: name, category, steps: this.steps - steps, tokens: this.tokens - tokens });
  }

  private stepOf(trace: Trace, accepted: Int32Array, room: number): VerifiedStep {
    const { nodes, parents, places, options } = this;
    const off = trace.offPath;
    const n = nodes.length;
    const k = Math.min(options.topK ?? trace.k, trace.k);
    const ids = new Int32Array(n * k).fill(-1);
    const probs = new Float32Array(n * k);
    const path: number[] = [];
    for (let i = 0; i < n; i++) {
      const place = places[i];
      if (place === UNKNOWN) continue;
      if (place >= 0) path.push(i);
      const from = place >= 0 ? trace : off!;
      const base = (place >= 0 ? place : ~place) * from.k;
      const known = Math.min(k, from.k);
      ids.set(from.ids.subarray(base, base + known), i * k);
      probs.set(from.probs.subarray(base, base + known), i * k);
    }
    const verified: VerifiedSlot = {
      slot: 0,
      accepted: accepted.slice(),
      nodes: Int32Array.from(nodes),
      parents: Int32Array.from(parents),
      path: Int32Array.from(path.slice(0, accepted.length)),
      k,
      ids,
      probs,
      room,
      draft: true,
    };
    return { decodeUs: options.cost?.(n) ?? 0, nBatch: n, slots: [verified] };
  }

  /** Finds out what an engine would say of a draft; returns how many nodes it accepts. */
  private verify(trace: Trace, draft: SlotDraft | undefined, at: number, root: number): number {
    const { nodes, parents, places } = this;
    nodes.length = 0;
    parents.length = 0;
    places.length = 0;
    nodes.push(root);
    parents.push(-1);
    places.push(at);
    const n = draft?.tokens.length ?? 0;
    if (draft === undefined || n === 0) return 0;
    this.sent += n;
    const depths = depthsOf(draft);
    const indices = new Int32Array(n);
    let accepted = 0;
    // the engine sorts nodes by depth
    for (let level = 1; nodes.length <= n; level++) {
      for (let i = 0; i < n; i++) {
        if (depths[i] !== level) continue;
        const parent = draft.parents[i] < 0 ? 0 : indices[draft.parents[i]];
        const place = this.placeBelow(trace, places[parent], draft.tokens[i]);
        if (place >= 0) accepted++;
        else this.rejected++;
        if (place === UNKNOWN) this.options.onMissing?.({ trace, position: at, path: pathTo(draft, i) });
        else if (place < 0) this.known++;
        indices[i] = nodes.length;
        nodes.push(draft.tokens[i]);
        parents.push(parent);
        places.push(place);
      }
    }
    return accepted;
  }

  /** The place of a token below another place. */
  private placeBelow(trace: Trace, place: number, token: number): number {
    const { tokens, offPath } = trace;
    if (place >= 0 && place < tokens.length - 1 && tokens[place] === token) return place + 1;
    if (place === UNKNOWN || this.options.offPath === false || offPath === undefined) return UNKNOWN;
    const node = offPath.find(place, token);
    return node < 0 ? UNKNOWN : ~node;
  }
}

function depthsOf(draft: SlotDraft): Int32Array {
  const depths = new Int32Array(draft.tokens.length);
  for (let i = 0; i < depths.length; i++) {
    depths[i] = draft.parents[i] < 0 ? 1 : depths[draft.parents[i]] + 1;
  }
  return depths;
}

function pathTo(draft: SlotDraft, node: number): number[] {
  const path: number[] = [];
  for (let at = node; at >= 0; at = draft.parents[at]) path.unshift(draft.tokens[at]);
  return path;
}

/** The value below which the share `q` of the samples lies; NaN without samples. */
export function quantile(samples: Float64Array, q: number): number {
  if (samples.length === 0) return Number.NaN;
  const sorted = samples.slice().sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

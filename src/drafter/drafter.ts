/**
 * The ADED drafter: learns from what the engine verified and answers with draft trees. Wires the parts together: scopes and their matrices,
 * the slots' suffix indices, the mixed prior, the search and the controller.
 */
import type { CorpusFloor } from "../corpus/floor.ts";
import { AcceptanceCounter } from "./acceptance.ts";
import { BestFirst } from "./best-first.ts";
import { Controller, type StepCost } from "./controller.ts";
import { CostModel } from "./cost-model.ts";
import type {
  BeginRequest,
  Drafter,
  DrafterStats,
  EngineInfo,
  SlotDraft,
  VerifiedSlot,
  VerifiedStep,
} from "./draft.ts";
import type { DraftTree } from "./draft-tree.ts";
import { Mcts, mctsExpansions } from "./mcts.ts";
import { type DrafterOptions, type ResolvedDrafterOptions, resolveDrafterOptions } from "./options.ts";
import { Prior } from "./prior.ts";
import { Random } from "./random.ts";
import { Scopes } from "./scopes.ts";
import { growChain, type SearchLimits, type TreeSearch } from "./search.ts";
import { SlotState } from "./slot-state.ts";
import { loadSnapshot, type SnapshotLoad, saveSnapshot } from "./snapshot.ts";
import { NONE } from "./trigram-matrix.ts";

/** A prompt is never longer; guards the memory against a `keep` that is not one. */
const MOST_KEPT = 2 ** 22;
/** How likely the likeliest child of a node is taken to be before it is priced (best-first.ts): costs nothing measurable, saves two fifths of the time. */
const HOPE = 0.4;
/** Where all requests learn when scopes are shared. */
const SHARED_SCOPE = "";

export class AdedDrafter implements Drafter {
  private readonly info: EngineInfo;
  private readonly options: ResolvedDrafterOptions;
  private readonly scopes: Scopes;
  private readonly prior: Prior;
  private readonly search: TreeSearch;
  private readonly controller: Controller;
  private readonly slots: (SlotState | undefined)[] = [];
  /** Most nodes of one slot's tree. */
  private readonly maxNodes: number;
  private readonly maxExpansions: number;
  /** How fast rows of 0, 1, 2 tokens learn. */
  private readonly rates: Float64Array;

  // Scratch, and the answer that is handed out.
  private readonly cost: StepCost = { roots: 0, nodes: 0, nBatch: 0, decodeUs: 0, asked: 0, spentUs: 0 };
  private readonly limits: SearchLimits = { nodes: 0, depth: 0, floor: 0 };
  private readonly cellOfNode: Int32Array;
  private readonly drafting: SlotState[] = [];
  private readonly trees: DraftTree[] = [];
  private readonly treeSlots: Int32Array;
  private readonly answers: SlotDraft[] = [];

  private readonly acceptance = new AcceptanceCounter();
  /** Bytes of the budget that are the floor's, or kept for it. */
  private floorBytes: number;
  private floorRows = 0;
  private steps = 0;
  private tokens = 0;
  private draftedNodes = 0;
  private acceptedNodes = 0;
  private lastNodes = 0;
  private purges = 0;

  /** Throws ADED_CONFIG for an option out of bounds; nothing throws later. */
  constructor(info: EngineInfo, options: DrafterOptions = {}) {
    this.info = info;
    this.options = resolveDrafterOptions(options);
    const { unigramRate, bigramRate, trigramRate } = this.options;
    this.rates = Float64Array.of(unigramRate, bigramRate, trigramRate);
    const { matrixBytes, matrixWidth, maxScopes, search, exploration, effort, overheadUs, seed } =
      this.options;
    const chain = info.tree ? Number.POSITIVE_INFINITY : info.maxChain;
    this.maxNodes = Math.max(1, Math.min(this.options.maxNodes, info.maxNodes, chain));
    const { historyTokens, without } = this.options;
    this.scopes = new Scopes({ bytes: matrixBytes, width: matrixWidth, historyTokens, most: maxScopes });
    // options see to it that this is at most half of the budget
    this.floorBytes = this.options.floorBytes;
    this.scopes.budget.take(this.floorBytes);
    this.prior = new Prior({ nVocab: info.nVocab, width: matrixWidth, without });
    this.search =
      search === "puct"
        ? new Mcts(this.maxNodes, { exploration, effort })
        : new BestFirst(this.maxNodes, HOPE);
    this.maxExpansions = search === "puct" ? mctsExpansions(this.maxNodes, effort) : this.maxNodes + 1;
    const cost = new CostModel(info.costTokens, info.costUs, info.nSlots + info.maxNodes);
    this.controller = new Controller(info.nSlots, info.maxNodes, cost, overheadUs, new Random(seed));
    this.cellOfNode = new Int32Array(info.maxNodes + 1);
    this.treeSlots = new Int32Array(info.nSlots);
  }

  begin(request: BeginRequest): void {
    const { slot } = request;
    if (!(slot >= 0 && slot < this.info.nSlots)) return;
    const scope = this.scopes.enter(this.options.shareScopes ? SHARED_SCOPE : request.scope);
    let state = this.slots[slot];
    if (state === undefined) {
      state = new SlotState(slot, scope, this.maxNodes, this.maxExpansions, this.options.matrixWidth);
      this.slots[slot] = state;
    } else if (state.id >= 0) {
      this.end(slot, state.id, "begin");
    }
    state.scope = scope;
    state.id = request.id;
    state.suffix.truncate(Math.min(Math.max(0, request.keep), MOST_KEPT));
    for (let i = 0; i < request.tokens.length; i++) state.suffix.append(request.tokens[i]);
    const { sampling } = request;
    state.drafts = sampling.draft;
    state.greedy = sampling.greedy || !(sampling.temperature > 0);
    state.sharpness = state.greedy ? 1 : 1 / sampling.temperature;
    state.plainArgmax = state.greedy && !sampling.grammar;
    state.restart();
    this.controller.reset(slot);
  }

  observe(step: VerifiedStep): void {
    const { slots } = step;
    this.account(step);
    for (let i = 0; i < slots.length; i++) {
      const verified = slots[i];
      const state = this.slots[verified.slot];
      if (state === undefined || state.id < 0 || verified.nodes.length === 0) continue;
      if (!state.drafts && !this.options.learnFromPlain) {
        for (let t = 0; t < verified.accepted.length; t++) state.suffix.append(verified.accepted[t]);
        continue;
      }
      this.count(verified);
      this.controller.tick(verified.slot);
      if (state.live && state.sent > 0 && verified.nodes.length === state.sent + 1) {
        this.controller.settle(verified.slot, state.promised, verified.path.length - 1);
      }
      this.learnPrior(state, verified);
      this.learnMatrix(state, verified);
      for (let t = 0; t < verified.accepted.length; t++) state.suffix.append(verified.accepted[t]);
      this.rememberLast(state, verified);
      state.live = false;
      state.asked = false;
      state.sent = 0;
    }
  }

  draft(step: VerifiedStep): readonly SlotDraft[] {
    const { answers, drafting, trees, treeSlots, controller, info, options } = this;
    answers.length = 0;
    this.lastNodes = 0;
    const count = this.gather(step);
    if (count === 0) return answers;
    const fixed = options.fixedNodes;
    const roots = step.slots.length;
    if (fixed === undefined && controller.cost.wantsPlain(roots)) {
      controller.cost.askedPlain(roots);
      for (let i = 0; i < count; i++) answers.push(drafting[i].answer(0, controller.pause(drafting[i].slot)));
      return answers;
    }
    // With many slots none needs a tree much larger than its share; with a fixed size none may have more.
    const share = Math.floor(info.maxNodes / count);
    const { limits } = this;
    limits.nodes = Math.min(this.maxNodes, fixed === undefined ? 2 * share + 2 : Math.min(fixed, share));
    limits.floor = fixed === undefined ? controller.floor(roots) : 0;
    const most = limits.nodes;
    for (let i = 0; i < count; i++) {
      const state = drafting[i];
      const room = roomOf(step, state.slot);
      limits.nodes = Math.min(most, room);
      limits.depth = Math.min(options.maxDepth, room);
      if (fixed === undefined && controller.overdrawn(state.slot))
        state.tree.reset(state.suffix.at(state.suffix.length - 1));
      else this.grow(state);
      trees[i] = state.tree;
      treeSlots[i] = state.slot;
    }
    let total = 0;
    if (fixed === undefined) total = controller.allocate(trees, treeSlots, count, roots, info.maxNodes);
    for (let i = 0; i < count; i++) {
      const state = drafting[i];
      const nodes = fixed === undefined ? controller.counts[i] : state.tree.size;
      if (fixed !== undefined) total += nodes;
      const sleep = fixed === undefined ? controller.sleepAfter(state.slot, nodes) : 0;
      if (nodes > 0 || sleep > 0) answers.push(state.answer(nodes, sleep));
    }
    this.lastNodes = total;
    return answers;
  }

  end(slot: number, id: number, _reason: string): void {
    const state = this.slots[slot];
    if (state === undefined || state.id !== id) return;
    if (state.drafts || this.options.learnFromPlain) state.rememberOutput();
    this.scopes.leave(state.scope);
    state.id = -1;
    state.live = false;
    this.controller.reset(slot);
  }

  /**
   * Puts the rows of the corpora under all scopes; what was kept for them and they do not need goes back to the matrices.
   * A floor for which there is no room is not taken.
   *
   * @param floor undefined: there are none
   * @returns whether it was taken
   */
  useFloor(floor: CorpusFloor | undefined): boolean {
    const { budget } = this.scopes;
    const bytes = floor?.bytes ?? 0;
    if (bytes > this.floorBytes && !budget.take(bytes - this.floorBytes)) return false;
    if (bytes < this.floorBytes) budget.give(this.floorBytes - bytes);
    this.floorBytes = bytes;
    this.floorRows = floor?.rowCount ?? 0;
    this.prior.useFloor(floor);
    return true;
  }

  /** Forgets what a scope learnt. False if there is no such scope. Save after that: the last snapshot still holds it. */
  purge(scope: string): boolean {
    if (!this.scopes.purge(scope)) return false;
    this.purges++;
    return true;
  }

  load(file: string): SnapshotLoad {
    return loadSnapshot(file, this.info, this.scopes);
  }

  /** Drafting may go on meanwhile. */
  async save(file: string): Promise<number> {
    for (;;) {
      const bytes = await saveSnapshot(file, this.info, this.scopes, () => this.purges);
      if (bytes !== undefined) return bytes;
    }
  }

  stats(): DrafterStats {
    const { cost } = this.controller;
    const costUs: Record<string, number> = {};
    for (let i = 0; i < this.info.costTokens.length; i++) {
      const n = this.info.costTokens[i];
      if (n <= cost.most) costUs[n] = cost.us(n);
    }
    return {
      steps: this.steps,
      tokens: this.tokens,
      tokensPerStep: this.steps > 0 ? this.tokens / this.steps : 0,
      draftedNodes: this.draftedNodes,
      acceptedNodes: this.acceptedNodes,
      matrix: {
        rows: this.scopes.rows + this.floorRows,
        bytes: this.scopes.budget.used,
        limit: this.scopes.budget.limit,
      },
      controller: { asleep: this.controller.asleep, nodes: this.lastNodes },
      costUs,
      acceptance: this.acceptance.stats(),
    };
  }

  /** What the step cost, and what it gained in the slots that were asked. */
  private account({ slots, decodeUs, nBatch, spentUs = 0 }: VerifiedStep): void {
    const { controller, cost } = this;
    cost.roots = slots.length;
    cost.nodes = 0;
    cost.nBatch = nBatch;
    cost.decodeUs = decodeUs;
    cost.asked = 0;
    cost.spentUs = spentUs;
    for (let i = 0; i < slots.length; i++) {
      cost.nodes += Math.max(0, slots[i].nodes.length - 1);
      if (this.slots[slots[i].slot]?.asked === true) cost.asked++;
    }
    controller.observe(cost);
    for (let i = 0; i < slots.length && cost.asked > 0; i++) {
      const { slot, accepted, nodes } = slots[i];
      if (this.slots[slot]?.asked !== true) continue;
      const share = cost.nodes > 0 ? (nodes.length - 1) / cost.nodes : 1 / cost.asked;
      controller.account(slot, accepted.length, share, cost);
    }
  }

  /** Collects the slots that draft for the next step in `drafting`; returns how many. */
  private gather(step: VerifiedStep): number {
    const { drafting, controller, info } = this;
    if (info.maxNodes < 1 || (!info.tree && info.maxChain < 1)) return 0;
    let count = 0;
    for (let i = 0; i < step.slots.length && count < info.nSlots; i++) {
      const verified = step.slots[i];
      const state = this.slots[verified.slot];
      if (state === undefined || state.id < 0 || !state.drafts || !verified.draft || verified.room < 1)
        continue;
      if (controller.sleeping(verified.slot) || state.suffix.length === 0) continue;
      state.asked = true;
      drafting[count++] = state;
    }
    return count;
  }

  private count(verified: VerifiedSlot): void {
    this.steps++;
    this.tokens += verified.accepted.length;
    this.draftedNodes += verified.nodes.length - 1;
    this.acceptedNodes += Math.max(0, verified.path.length - 1);
    this.acceptance.countDepths(verified);
  }

  private grow(state: SlotState): void {
    const { tree } = state;
    tree.reset(state.suffix.at(state.suffix.length - 1));
    this.prior.bind(state);
    if (this.info.tree) this.search.grow(tree, this.prior, this.limits);
    else growChain(tree, this.prior, this.limits);
    state.live = true;
  }

  /** Tells the prior what followed each verified cell. A slot that did not draft learns at its root alone. */
  private learnPrior(state: SlotState, verified: VerifiedSlot): void {
    const { nodes, parents, path, accepted, ids, k } = verified;
    const { tree, suffix } = state;
    if (suffix.at(suffix.length - 1) !== nodes[0]) return;
    this.prior.bind(state);
    if (!state.live) {
      tree.reset(nodes[0]);
      this.prior.expand(tree, 0);
    }
    const { cellOfNode } = this;
    const n = Math.min(nodes.length, cellOfNode.length);
    cellOfNode[0] = 0;
    for (let i = 1; i < n; i++) {
      const parent = parents[i];
      const above = parent >= 0 && parent < i ? cellOfNode[parent] : -1;
      cellOfNode[i] = above < 0 ? -1 : tree.childWith(above, nodes[i]);
    }
    if (state.live) this.acceptance.countSources(verified, cellOfNode, n, state.evidence);
    const onPath = Math.min(path.length, accepted.length);
    for (let j = 0; j < onPath; j++) {
      const node = path[j];
      if (k > 0 && ids[node * k] !== accepted[j]) state.plainArgmax = false;
      if (node < n && cellOfNode[node] >= 0) this.prior.learn(tree, cellOfNode[node], accepted[j]);
    }
    if (!state.plainArgmax || k === 0) return;
    for (let i = 1, j = 1; i < n; i++) {
      while (j < path.length && path[j] < i) j++;
      if (j < path.length && path[j] === i) continue;
      // nothing is known of a node without successors
      if (cellOfNode[i] >= 0 && ids[i * k] >= 0) this.prior.learn(tree, cellOfNode[i], ids[i * k]);
    }
  }

  /** Updates the rows of every verified node, the accepted ones last so that they are the recent ones. */
  private learnMatrix(state: SlotState, verified: VerifiedSlot): void {
    if (verified.k < 1) return;
    this.scopes.relieve(state.scope);
    const { nodes, path } = verified;
    for (let i = 1, j = 1; i < nodes.length; i++) {
      while (j < path.length && path[j] < i) j++;
      if (j < path.length && path[j] === i) continue;
      this.learnNode(state, verified, i);
    }
    for (let j = 0; j < path.length; j++) {
      this.learnNode(state, verified, path[j]);
      const { ids, probs, k } = verified;
      state.matrix.update(NONE, NONE, ids, probs, path[j] * k, k, this.rates);
    }
  }

  private learnNode(state: SlotState, verified: VerifiedSlot, node: number): void {
    const { nodes, parents, ids, probs, k } = verified;
    const { suffix } = state;
    const token = nodes[node];
    if (!(token >= 0 && token < this.info.nVocab) || ids[node * k] < 0) return;
    const parent = parents[node];
    let before = NONE;
    if (parent >= 0) before = nodes[parent];
    else if (suffix.at(suffix.length - 1) === token) before = suffix.at(suffix.length - 2);
    if (before >= 0) state.matrix.update(before, token, ids, probs, node * k, k, this.rates);
    state.matrix.update(NONE, token, ids, probs, node * k, k, this.rates);
  }

  private rememberLast(state: SlotState, verified: VerifiedSlot): void {
    const { path, ids, probs, k } = verified;
    const last = path.length > 0 ? path[path.length - 1] : 0;
    const n = Math.min(k, state.lastIds.length);
    for (let i = 0; i < n; i++) {
      state.lastIds[i] = ids[last * k + i];
      state.lastProbs[i] = probs[last * k + i];
    }
    state.lastCount = n;
    if (verified.nodes.length > 1) state.settle(verified.accepted.length - 1);
  }
}

function roomOf(step: VerifiedStep, slot: number): number {
  for (let i = 0; i < step.slots.length; i++) if (step.slots[i].slot === slot) return step.slots[i].room;
  return 0;
}

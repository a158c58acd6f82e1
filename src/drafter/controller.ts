/**
 * How many nodes to draft. For all slots of a step together it takes the n that maximises
 *
 *     (S + sum of the n largest path probabilities) / (cost(S + n) + overhead),
 *
 * overhead being what asking the drafter adds to a step, as the engine measures it, and S being the slots' root tokens: nodes go where the
 * marginal gain is highest, cliffs of the cost table included, and n may be 0. What this really gains is kept account of (ledger.ts):
 * a slot in which asking does not pay sleeps.
 */
import type { CostModel } from "./cost-model.ts";
import type { DraftTree } from "./draft-tree.ts";
import { Ledger, Trust } from "./ledger.ts";
import type { Random } from "./random.ts";

/** Speed-up that a draft must promise: for a slot that is awake, and for one that only probes. */
const MARGIN_AWAKE = 1.01;
const MARGIN_PROBE = 1.06;
/** Weight of one exchange in the running mean of what it adds; one counts as at most so many times that mean, so that a hiccup does not. */
const OVERHEAD_RATE = 1 / 32;
const MOST_OVERHEAD = 4;
/** The same for a forward pass and what one of its size is known to take. */
const MOST_DECODE = 1.5;
/** Path probability that a node must have to be drafted for no more than to learn what it costs. */
const TRIAL = 0.3;
/** Weight of one step in the running means of promised and kept gains. */
const TRUST_RATE = 1 / 32;

/** What the engine measured of a step. */
export interface StepCost {
  /** Slots in it. */
  roots: number;
  /** Draft nodes in it, of all slots. */
  nodes: number;
  /** Tokens in its forward pass. */
  nBatch: number;
  /** µs of that pass; 0 if it evaluated prompt tokens, too. */
  decodeUs: number;
  /** Slots that the engine asked for drafts. */
  asked: number;
  /** µs that asking added to it; 0: the engine did not ask, or does not tell. */
  spentUs: number;
}

interface SlotState {
  readonly ledger: Ledger;
  /** Running means of accepted nodes: promised by the path probabilities, and real. */
  promised: number;
  kept: number;
}

export class Controller {
  readonly cost: CostModel;
  private overheadUs: number;
  private readonly random: Random;
  private readonly slots: SlotState[] = [];
  private readonly heads: Int32Array;
  /** Order in which slots got their nodes in the allocation at hand. */
  private readonly turns: Int32Array;
  /** Trust in each of its trees' slots, and µs of a pass by number of nodes: looked up once, not for each node again. */
  private readonly trusts: Float64Array;
  private readonly passes: Float64Array;
  /** Nodes per tree of the last allocation. */
  readonly counts: Int32Array;
  private readonly experience = new Trust();
  /** Tokens per µs that the last allocation promised. */
  private lastRate = 0;
  /** Tokens in each pass of an engine that fills steps up to a width, with drafts or without (`--draft-width`); 0: it does not. */
  private width = 0;

  /**
   * @param nSlots slots of the engine
   * @param maxNodes most nodes over all slots
   */
  constructor(nSlots: number, maxNodes: number, cost: CostModel, overheadUs: number, random: Random) {
    this.cost = cost;
    this.overheadUs = overheadUs;
    this.random = random;
    this.heads = new Int32Array(nSlots);
    this.counts = new Int32Array(nSlots);
    this.turns = new Int32Array(maxNodes);
    this.trusts = new Float64Array(nSlots);
    this.passes = new Float64Array(maxNodes + 1);
    for (let i = 0; i < nSlots; i++) this.slots.push(freshState());
  }

  /** Counts a measured step. */
  observe({ nodes, nBatch, decodeUs, asked, spentUs }: StepCost): void {
    const { cost } = this;
    if (asked > 0 && spentUs > 0) {
      // A pass after an exchange is a little slower than others, since the drafter's thread had a core: part of the price.
      const after = decodeUs > 0 ? decodeUs - cost.us(nBatch) : 0;
      const us = Math.min(
        Math.max(spentUs / 2, spentUs + after),
        MOST_OVERHEAD * Math.max(this.overheadUs, 1),
      );
      this.overheadUs += (us - this.overheadUs) * OVERHEAD_RATE;
    }
    if (asked === 0 && decodeUs > 0) this.width = nodes > 0 ? nBatch : 0;
    // … and so not one to compare others with.
    if (asked === 0 || nodes > 0) cost.observe(nBatch, decodeUs);
    else cost.pass();
  }

  /**
   * Enters in the books what a step gained in a slot that was asked for drafts.
   *
   * @param tokens tokens that the slot got
   * @param share its share in what the step cost more than a plain one, 0 … 1
   */
  account(slot: number, tokens: number, share: number, step: StepCost): void {
    const { roots, nodes, nBatch, decodeUs, spentUs } = step;
    const plain = this.pass(roots);
    const us =
      decodeUs > 0 ? Math.min(decodeUs, MOST_DECODE * this.cost.us(nBatch)) : this.pass(roots + nodes);
    const spent = spentUs > 0 ? Math.min(spentUs, MOST_OVERHEAD * this.overheadUs) : this.overheadUs;
    this.slots[slot].ledger.enter((tokens - 1) / roots - (share * (us + spent - plain)) / plain);
  }

  /** Slots that sleep now. */
  get asleep(): number {
    let n = 0;
    for (const slot of this.slots) if (slot.ledger.sleeping) n++;
    return n;
  }

  /** A request begins or ends in a slot: the next one starts awake. */
  reset(slot: number): void {
    const state = this.slots[slot];
    this.experience.learn(state.ledger.total);
    state.ledger.open(this.experience.value);
    state.promised = 1;
    state.kept = 1;
  }

  /** One step passed in a slot. */
  tick(slot: number): void {
    this.slots[slot].ledger.tick();
  }

  sleeping(slot: number): boolean {
    return this.slots[slot].ledger.sleeping;
  }

  /** For one step nobody is to be asked in that slot, so that the cost of a plain one is known. @returns the steps to sleep */
  pause(slot: number): number {
    this.slots[slot].ledger.pause();
    return 1;
  }

  /** Drafts lost so much in that slot that it is to sleep, whatever the next one promises. */
  overdrawn(slot: number): boolean {
    return this.slots[slot].ledger.overdrawn;
  }

  /** Counts how a draft fared: the accepted nodes that its path probabilities promised, and those really accepted. */
  settle(slot: number, promised: number, kept: number): void {
    const state = this.slots[slot];
    state.promised += (promised - state.promised) * TRUST_RATE;
    state.kept += (kept - state.kept) * TRUST_RATE;
  }

  /** Path probability below which a node cannot pay, for a step of `roots` slots. */
  floor(roots: number): number {
    const plain = roots / this.pass(roots);
    const floor = 0.5 * this.cost.leastSlope(roots) * Math.max(plain, 0.7 * this.lastRate);
    return this.cost.isGuess(roots + 1) ? Math.min(floor, TRIAL) : floor;
  }

  /**
   * Shares the step's nodes out among the trees; the result is in `counts`.
   *
   * @param trees grown trees, one per slot that may draft, each picked in order of falling path probability
   * @param slots the slot of each tree
   * @param roots tokens in the forward pass without drafts: one per generating slot
   * @param most most nodes over all trees
   * @returns nodes in all
   */
  allocate(
    trees: readonly DraftTree[],
    slots: Int32Array,
    count: number,
    roots: number,
    most: number,
  ): number {
    const { heads, counts, turns, trusts, passes, overheadUs } = this;
    counts.fill(0);
    heads.fill(0);
    let probing = count > 0;
    for (let i = 0; i < count; i++) {
      if (!this.slots[slots[i]].ledger.probing) probing = false;
      trusts[i] = this.trust(slots[i]);
    }
    this.cost.list(roots, this.width, passes);
    const plain = roots / passes[0];
    let bestRate = plain * (probing ? MARGIN_PROBE : MARGIN_AWAKE);
    let best = 0;
    // as a number for certain: else V8 allocates each of the sums (the sampling heap profiler shows it)
    let expected = +roots;
    let first = 0;
    let n = 0;
    while (n < most && n < turns.length) {
      let turn = -1;
      let gain = 0;
      for (let i = 0; i < count; i++) {
        if (heads[i] >= trees[i].size) continue;
        const g = trees[i].path[trees[i].order[heads[i]]] * trusts[i];
        if (g > gain) {
          gain = g;
          turn = i;
        }
      }
      if (turn < 0) break;
      heads[turn]++;
      if (n === 0) first = gain;
      turns[n++] = turn;
      expected += gain;
      const rate = expected / (passes[n] + overheadUs);
      if (rate > bestRate) {
        bestRate = rate;
        best = n;
      }
    }
    // A table that makes all drafts too dear would never be proved wrong.
    if (best === 0 && first >= TRIAL && this.cost.isGuess(roots + 1)) best = 1;
    for (let i = 0; i < best; i++) counts[turns[i]]++;
    this.lastRate = best > 0 ? bestRate : plain;
    return best;
  }

  /** What becomes of a slot after an allocation gave it `nodes`: the steps that it sleeps, 0 for none. */
  sleepAfter(slot: number, nodes: number): number {
    const state = this.slots[slot];
    const { ledger } = state;
    if (nodes > 0) ledger.wake();
    if (!ledger.overdrawn && !ledger.probing) return 0;
    // Half-way back to full trust: a slot that slept through a change of topic gets another chance.
    state.promised = (state.promised + state.kept) / 2;
    return ledger.sleep(this.overheadUs / this.pass(1), this.random);
  }

  /** µs of a forward pass of so many roots and nodes. */
  private pass(tokens: number): number {
    return this.cost.us(Math.max(tokens, this.width));
  }

  /** Factor on a slot's path probabilities: at most 1, less where they promised more than came. */
  private trust(slot: number): number {
    const { promised, kept } = this.slots[slot];
    return promised > kept ? kept / promised : 1;
  }
}

/** The running means start as if one accepted node had been promised and kept. */
function freshState(): SlotState {
  return { ledger: new Ledger(), promised: 1, kept: 1 };
}

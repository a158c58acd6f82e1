/**
 * How many nodes to draft. For all slots of a step together it takes the n that maximises
 *
 *     (S + sum of the n largest path probabilities) / (cost(S + n) + overhead),
 *
 * overhead being what asking the drafter adds to a step, as the engine measures it, and S being the slots' root tokens: nodes go where the marginal gain is highest, cliffs of the cost table included, and n may be 0. A slot
 * that got nothing for a while sleeps: the engine does not even ask. Sleeps double in length while probes find nothing,
 * and waking takes more than staying awake (hysteresis).
 */
import type { CostModel } from "./cost-model.ts";
import type { DraftTree } from "./draft-tree.ts";
import type { Random } from "./random.ts";

/** Asks in a row without nodes after which a slot sleeps: text pays in bursts, so not too few. */
const PATIENCE = 16;
/** The same for new requests, once request after request slept without ever having drafted. */
const LEAST_PATIENCE = 2;
/** Steps. */
const FIRST_SLEEP = 4;
const MOST_SLEEP = 128;
/** Speed-up that a draft must promise: for a slot that is awake, and for one that only probes. */
const MARGIN_AWAKE = 1.01;
const MARGIN_PROBE = 1.06;
/** Weight of one exchange in the running mean of what it adds; one counts as at most so many times that mean, so that a hiccup does not. */
const OVERHEAD_RATE = 1 / 32;
const MOST_OVERHEAD = 4;
/** Weight of one step in the running means of promised and kept gains. */
const TRUST_RATE = 1 / 32;

interface SlotState {
  /** Asks in a row without nodes. */
  idle: number;
  /** Steps left to sleep. */
  sleepLeft: number;
  nextSleep: number;
  probing: boolean;
  /** The request got nodes at some step. */
  paid: boolean;
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
  /** Nodes per tree of the last allocation. */
  readonly counts: Int32Array;
  private patience = PATIENCE;
  /** Tokens per µs that the last allocation promised. */
  private lastRate = 0;

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
    for (let i = 0; i < nSlots; i++) this.slots.push(freshState());
  }

  /** What an exchange with the engine added to a step, µs: drafts have to pay for it. Ignores what is not above 0. */
  observeOverhead(us: number): void {
    if (!(us > 0)) return;
    this.overheadUs +=
      (Math.min(us, MOST_OVERHEAD * Math.max(this.overheadUs, 1)) - this.overheadUs) * OVERHEAD_RATE;
  }

  /** Slots that sleep now. */
  get asleep(): number {
    let n = 0;
    for (const slot of this.slots) if (slot.sleepLeft > 0) n++;
    return n;
  }

  /** A request begins or ends in a slot: the next one starts awake. */
  reset(slot: number): void {
    const state = this.slots[slot];
    if (state.probing && !state.paid) this.patience = Math.max(LEAST_PATIENCE, this.patience >> 1);
    Object.assign(state, freshState());
  }

  /** One step passed in a slot. */
  tick(slot: number): void {
    const state = this.slots[slot];
    if (state.sleepLeft > 0) state.sleepLeft--;
  }

  sleeping(slot: number): boolean {
    return this.slots[slot].sleepLeft > 0;
  }

  /** Counts how a draft fared: the accepted nodes that its path probabilities promised, and those really accepted. */
  settle(slot: number, promised: number, kept: number): void {
    const state = this.slots[slot];
    state.promised += (promised - state.promised) * TRUST_RATE;
    state.kept += (kept - state.kept) * TRUST_RATE;
  }

  /** Path probability below which a node cannot pay, for a step of `roots` slots. */
  floor(roots: number): number {
    const plain = roots / this.cost.us(roots);
    return 0.5 * this.cost.leastSlope(roots) * Math.max(plain, 0.7 * this.lastRate);
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
    const { heads, counts, turns, cost, overheadUs } = this;
    counts.fill(0);
    heads.fill(0);
    let probing = count > 0;
    for (let i = 0; i < count; i++) if (!this.slots[slots[i]].probing) probing = false;
    const plain = roots / cost.us(roots);
    let bestRate = plain * (probing ? MARGIN_PROBE : MARGIN_AWAKE);
    let best = 0;
    let expected = roots;
    let n = 0;
    while (n < most && n < turns.length) {
      let turn = -1;
      let gain = 0;
      for (let i = 0; i < count; i++) {
        if (heads[i] >= trees[i].size) continue;
        const g = trees[i].path[trees[i].order[heads[i]]] * this.trust(slots[i]);
        if (g > gain) {
          gain = g;
          turn = i;
        }
      }
      if (turn < 0) break;
      heads[turn]++;
      turns[n++] = turn;
      expected += gain;
      const rate = expected / (cost.us(roots + n) + overheadUs);
      if (rate > bestRate) {
        bestRate = rate;
        best = n;
      }
    }
    for (let i = 0; i < best; i++) counts[turns[i]]++;
    this.lastRate = best > 0 ? bestRate : plain;
    return best;
  }

  /** What becomes of a slot after an allocation gave it `nodes`: the steps that it sleeps, 0 for none. */
  sleepAfter(slot: number, nodes: number): number {
    const state = this.slots[slot];
    if (nodes > 0) {
      state.idle = 0;
      state.probing = false;
      state.paid = true;
      this.patience = PATIENCE;
      state.nextSleep = FIRST_SLEEP;
      return 0;
    }
    // Half-way back to full trust: a slot that slept through a change of topic gets another chance.
    if (state.probing) state.promised = (state.promised + state.kept) / 2;
    if (!state.probing && ++state.idle < this.patience) return 0;
    const sleep = Math.round(state.nextSleep * (0.75 + 0.5 * this.random.next()));
    state.sleepLeft = sleep;
    state.probing = true;
    state.idle = 0;
    state.nextSleep = Math.min(MOST_SLEEP, state.nextSleep * 2);
    return sleep;
  }

  /** Factor on a slot's path probabilities: at most 1, less where they promised more than came. */
  private trust(slot: number): number {
    const { promised, kept } = this.slots[slot];
    return promised > kept ? kept / promised : 1;
  }
}

/** The running means start as if one accepted node had been promised and kept. */
function freshState(): SlotState {
  return { idle: 0, sleepLeft: 0, nextSleep: FIRST_SLEEP, probing: false, paid: false, promised: 1, kept: 1 };
}

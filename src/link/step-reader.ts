/**
 * Reads `step` frames (docs/protocol.md, 1.3) without allocating anything: one comes with every step of the engine, and what a general decoder
 * leaves behind of each is what the garbage collector would be woken for. Knows what engines write, and leaves all else, and whatever is wrong,
 * to that decoder (frames.ts), which names the fault.
 */
import type { EngineInfo, VerifiedSlot, VerifiedStep } from "../drafter/draft.ts";

export interface StepFrame {
  type: "step";
  seq: number;
  /** True: the engine waits for a draft with this `seq`. */
  ask: boolean;
  /** How long it waits, µs. */
  budgetUs: number;
  step: VerifiedStep;
}

/** Rounding in the engine's softmax may exceed 1 a little. */
const MAX_PROBABILITY = 1.001;
/** Larger arrays no engine sends: for them no room is kept. */
const MOST_BYTES = 2 ** 16;
/** What a number or a size is that is not there or cannot be read. */
const NONE = -1;

const FRAME_KEYS = keys("type", "seq", "us", "n_batch", "spent_us", "ask", "budget_us", "slots");
const [TYPE, SEQ, US, N_BATCH, SPENT_US, ASK, BUDGET_US, SLOTS] = FRAME_KEYS.keys();
const SLOT_KEYS = keys("slot", "accepted", "nodes", "parents", "path", "k", "ids", "probs", "room", "draft");
const [SLOT, ACCEPTED, NODES, PARENTS, PATH, K, IDS, PROBS, ROOM, DRAFT] = SLOT_KEYS.keys();
const [STEP] = keys("step");
const ALL_OF_FRAME = (1 << FRAME_KEYS.length) - 1;
const ALL_OF_SLOT = (1 << SLOT_KEYS.length) - 1;

function keys(...names: string[]): Uint8Array[] {
  return names.map((name) => new TextEncoder().encode(name));
}

export class StepReader {
  readonly #info: EngineInfo;
  readonly #frame: Mutable<StepFrame> & { step: Mutable<VerifiedStep> };
  readonly #slots: SlotArrays[] = [];
  /** The first n of the slots' results, by n. */
  readonly #lists: VerifiedSlot[][] = [];
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  #end = 0;

  /** @param info what bounds the numbers */
  constructor(info: EngineInfo) {
    this.#info = info;
    const step = { spentUs: 0, decodeUs: 0, nBatch: 0, slots: [] };
    this.#frame = { type: "step", seq: 0, ask: false, budgetUs: 0, step };
  }

  /**
   * @param bytes hold a frame's body from `start` to `end`
   * @returns the frame, valid until the next call; undefined: it is none, is not written as engines do, or breaks the protocol
   */
  read(bytes: Uint8Array, start: number, end: number): StepFrame | undefined {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
    return this.#readFrame() && this.#at === end ? this.#frame : undefined;
  }

  #readFrame(): boolean {
    const frame = this.#frame;
    const { step } = frame;
    step.spentUs = 0;
    let seen = 1 << SPENT_US;
    for (let left = this.#size(0x80, 0xde); left > 0; left--) {
      const key = this.#key(FRAME_KEYS);
      if (key === TYPE) {
        if (!this.#text(STEP)) return false;
      } else if (key === SLOTS) {
        if (!this.#readSlots()) return false;
      } else if (key === ASK) {
        const ask = this.#flag();
        if (ask === NONE) return false;
        frame.ask = ask === 1;
      } else {
        const value = this.#count();
        if (key === NONE || value === NONE) return false;
        if (key === SEQ) frame.seq = value;
        else if (key === US) step.decodeUs = value;
        else if (key === N_BATCH) step.nBatch = value;
        else if (key === SPENT_US) step.spentUs = value;
        else if (key === BUDGET_US) frame.budgetUs = value;
      }
      seen |= 1 << key;
    }
    return seen === ALL_OF_FRAME;
  }

  #readSlots(): boolean {
    const n = this.#size(0x90, 0xdc);
    if (n === NONE || n > this.#info.nSlots) return false;
    while (this.#slots.length < n) this.#slots.push(new SlotArrays());
    for (let i = 0; i < n; i++) if (!this.#readSlot(this.#slots[i])) return false;
    let list = this.#lists[n];
    if (list === undefined) {
      list = this.#slots.slice(0, n).map((slot) => slot.result);
      this.#lists[n] = list;
    }
    this.#frame.step.slots = list;
    return true;
  }

  #readSlot(slot: SlotArrays): boolean {
    const { result } = slot;
    let seen = 0;
    for (let left = this.#size(0x80, 0xde); left > 0; left--) {
      const key = this.#key(SLOT_KEYS);
      if (key === NONE) return false;
      if (key === DRAFT) {
        const draft = this.#flag();
        if (draft === NONE) return false;
        result.draft = draft === 1;
      } else if (key === SLOT || key === K || key === ROOM) {
        const value = this.#count();
        if (value === NONE) return false;
        if (key === SLOT) result.slot = value;
        else if (key === K) result.k = value;
        else result.room = value;
      } else {
        const n = this.#binLength();
        if (n === NONE) return false;
        if (key === ACCEPTED) result.accepted = slot.accepted.take(this.#bytes, this.#at, n);
        else if (key === NODES) result.nodes = slot.nodes.take(this.#bytes, this.#at, n);
        else if (key === PARENTS) result.parents = slot.parents.take(this.#bytes, this.#at, n);
        else if (key === PATH) result.path = slot.path.take(this.#bytes, this.#at, n);
        else if (key === IDS) result.ids = slot.ids.take(this.#bytes, this.#at, n);
        else if (key === PROBS) result.probs = slot.probs.take(this.#bytes, this.#at, n);
        this.#at += 4 * n;
      }
      seen |= 1 << key;
    }
    return seen === ALL_OF_SLOT && slotFault(result, this.#info) === undefined;
  }

  /** Entries of a map or an array, after its one-byte head `short` (| n) or its three-byte head `long`. */
  #size(short: number, long: number): number {
    if (this.#at >= this.#end) return NONE;
    const head = this.#bytes[this.#at++];
    if ((head & 0xf0) === short) return head & 0x0f;
    return head === long ? this.#bigEndian(2) : NONE;
  }

  /** Which of the keys comes next. */
  #key(table: readonly Uint8Array[]): number {
    for (let i = 0; i < table.length; i++) if (this.#text(table[i])) return i;
    return NONE;
  }

  /** Goes past this text, if it comes next. */
  #text(text: Uint8Array): boolean {
    const bytes = this.#bytes;
    const from = this.#at + 1;
    if (from + text.length > this.#end || bytes[this.#at] !== (0xa0 | text.length)) return false;
    for (let i = 0; i < text.length; i++) if (bytes[from + i] !== text[i]) return false;
    this.#at = from + text.length;
    return true;
  }

  /** 1 for true, 0 for false. */
  #flag(): number {
    if (this.#at >= this.#end) return NONE;
    const head = this.#bytes[this.#at++];
    return head === 0xc3 ? 1 : head === 0xc2 ? 0 : NONE;
  }

  /** An integer of 0 … 2³¹−1. */
  #count(): number {
    if (this.#at >= this.#end) return NONE;
    const head = this.#bytes[this.#at++];
    if (head < 0x80) return head;
    switch (head) {
      case 0xcc:
        return this.#bigEndian(1);
      case 0xcd:
        return this.#bigEndian(2);
      case 0xce:
      case 0xd2: {
        const value = this.#bigEndian(4);
        return value <= 0x7fffffff ? value : NONE;
      }
      default:
        return NONE;
    }
  }

  /** 4-byte numbers in the `bin` that begins here. */
  #binLength(): number {
    if (this.#at >= this.#end) return NONE;
    const head = this.#bytes[this.#at++];
    const length = head < 0xc4 || head > 0xc6 ? NONE : this.#bigEndian(1 << (head - 0xc4));
    if (length < 0 || length % 4 !== 0 || length > MOST_BYTES || this.#at + length > this.#end) return NONE;
    return length / 4;
  }

  #bigEndian(bytes: number): number {
    if (this.#at + bytes > this.#end) return NONE;
    let value = 0;
    for (let i = 0; i < bytes; i++) value = value * 256 + this.#bytes[this.#at++];
    return value;
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Where a slot's arrays are copied to: in the frame they need not lie aligned, and the next one overwrites it. */
class SlotArrays {
  readonly accepted = new Words((buffer, n) => new Int32Array(buffer, 0, n));
  readonly nodes = new Words((buffer, n) => new Int32Array(buffer, 0, n));
  readonly parents = new Words((buffer, n) => new Int32Array(buffer, 0, n));
  readonly path = new Words((buffer, n) => new Int32Array(buffer, 0, n));
  readonly ids = new Words((buffer, n) => new Int32Array(buffer, 0, n));
  readonly probs = new Words((buffer, n) => new Float32Array(buffer, 0, n));
  readonly result: VerifiedSlot = {
    slot: 0,
    accepted: new Int32Array(0),
    nodes: new Int32Array(0),
    parents: new Int32Array(0),
    path: new Int32Array(0),
    k: 0,
    ids: new Int32Array(0),
    probs: new Float32Array(0),
    room: 0,
    draft: false,
  };
}

/** Room for an array of 4-byte numbers, and views on it of each length that came. */
class Words<T> {
  readonly #view: (buffer: ArrayBuffer, n: number) => T;
  #words = new Int32Array(64);
  #views: (T | undefined)[] = [];

  constructor(view: (buffer: ArrayBuffer, n: number) => T) {
    this.#view = view;
  }

  /** Takes `n` little-endian numbers that lie from `at` on. */
  take(bytes: Uint8Array, at: number, n: number): T {
    if (n > this.#words.length) {
      this.#words = new Int32Array(Math.max(n, 2 * this.#words.length));
      this.#views = [];
    }
    const words = this.#words;
    for (let i = 0, from = at; i < n; i++, from += 4) {
      words[i] = bytes[from] | (bytes[from + 1] << 8) | (bytes[from + 2] << 16) | (bytes[from + 3] << 24);
    }
    let view = this.#views[n];
    if (view === undefined) {
      view = this.#view(words.buffer, n);
      this.#views[n] = view;
    }
    return view;
  }
}

/** What is wrong with a slot of a step, in words that follow `step.slots[i].`; undefined if nothing is. */
export function slotFault(slot: VerifiedSlot, info: EngineInfo): string | undefined {
  const { accepted, nodes, parents, path, k, ids, probs } = slot;
  const n = nodes.length;
  if (!(slot.slot < info.nSlots)) {
    return `slot is ${slot.slot}, expected an integer from 0 to ${info.nSlots - 1}`;
  }
  if (k > 1024) return `k is ${k}, expected an integer from 0 to 1024`;
  if (n === 0) return "nodes is empty";
  if (accepted.length === 0) return "accepted is empty";
  if (parents.length !== n) return lengthFault("parents", parents.length, n, "as many as nodes");
  if (path.length !== accepted.length)
    return lengthFault("path", path.length, accepted.length, "as many as accepted");
  if (ids.length !== n * k) return lengthFault("ids", ids.length, n * k, "nodes times k");
  if (probs.length !== n * k) return lengthFault("probs", probs.length, n * k, "nodes times k");
  const range =
    rangeFault("nodes", nodes, info.nVocab) ??
    rangeFault("accepted", accepted, info.nVocab) ??
    rangeFault("ids", ids, info.nVocab);
  if (range !== undefined) return range;
  for (let i = 0; i < probs.length; i++) {
    if (!(probs[i] >= 0 && probs[i] <= MAX_PROBABILITY)) return `probs[${i}] = ${probs[i]} is no probability`;
  }
  if (parents[0] !== -1) return `parents[0] = ${parents[0]}, expected -1 (the root)`;
  for (let i = 1; i < n; i++) {
    if (parents[i] < 0 || parents[i] >= i) return `parents[${i}] = ${parents[i]} is not an earlier node`;
  }
  if (path[0] !== 0) return `path[0] = ${path[0]}, expected 0 (the root)`;
  for (let i = 1; i < path.length; i++) {
    if (path[i] < 0 || path[i] >= n || parents[path[i]] !== path[i - 1]) {
      return `path[${i}] = ${path[i]} is no child of node ${path[i - 1]}`;
    }
    if (nodes[path[i]] !== accepted[i - 1]) {
      return `accepted[${i - 1}] = ${accepted[i - 1]}, but path says ${nodes[path[i]]}`;
    }
  }
  return undefined;
}

function lengthFault(key: string, actual: number, expected: number, of: string): string {
  return `${key} has ${actual} entries, expected ${expected} (${of})`;
}

/** Every value must be 0 … below-1. */
export function rangeFault(key: string, values: Int32Array, below: number): string | undefined {
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value < 0 || value >= below) return `${key}[${i}] = ${value} is out of range (0 to ${below - 1})`;
  }
  return undefined;
}

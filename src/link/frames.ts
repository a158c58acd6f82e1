/**
 * The frames of the draft link (docs/protocol.md, section 1): what the engine sends, decoded and checked, and what this
 * side answers, encoded. Number arrays travel as little-endian `bin`; hosts are little-endian too, so they become views
 * of the received bytes where these lie aligned, and one copy where not.
 */
import { Packr, RESERVE_START_SPACE, Unpackr } from "msgpackr";
import type { BeginRequest, EngineInfo, Exactness, SlotDraft, VerifiedSlot } from "../drafter/draft.ts";
import { AdedError, messageOf } from "../errors.ts";
import { DraftWriter, draftBytes } from "./draft-writer.ts";
import { rangeFault, type StepFrame, StepReader, slotFault } from "./step-reader.ts";

export const PROTOCOL_VERSION = 1;
/** Largest body that the engine may send, bytes. */
export const MAX_ENGINE_BODY = 16 * 1024 * 1024;
/** Largest body that this side may send, bytes. */
export const MAX_PEER_BODY = 1024 * 1024;

export type LinkFaultCode = "bad_frame" | "too_large" | "version" | "bad_draft";

/** A frame that breaks the protocol; `fault` is the code for the `error` frame that names it to the engine. */
export class LinkFrameError extends AdedError {
  readonly fault: LinkFaultCode;

  constructor(fault: LinkFaultCode, message: string, hint?: string) {
    super("ADED_LINK_FRAME", message, { hint });
    this.name = "LinkFrameError";
    this.fault = fault;
  }
}

export interface HelloFrame {
  type: "hello";
  info: EngineInfo;
}

export interface BeginFrame {
  type: "begin";
  request: BeginRequest;
}

export interface EndFrame {
  type: "end";
  slot: number;
  id: number;
  reason: string;
}

export interface ErrorFrame {
  type: "error";
  code: string;
  message: string;
  slot?: number;
}

export type EngineFrame = HelloFrame | BeginFrame | StepFrame | EndFrame | ErrorFrame;

type Fields = Record<string, unknown>;

const MAX_INT = Number.MAX_SAFE_INTEGER;
const MAX_INT32 = 0x7fffffff;

function fault(message: string): LinkFrameError {
  return new LinkFrameError(
    "bad_frame",
    `the engine sent a bad frame: ${message}`,
    "The engine and this program do not speak the same draft link; build the engine again (npx aded engine build).",
  );
}

function show(value: unknown): string {
  if (value instanceof Uint8Array) return `bin of ${value.byteLength} bytes`;
  if (Array.isArray(value)) return `array of ${value.length}`;
  if (typeof value === "object" && value !== null) return "map";
  // MessagePack extension 0x42, which JSON.stringify refuses
  if (typeof value === "bigint") return `${value.toString().slice(0, 80)}n`;
  return JSON.stringify(value)?.slice(0, 80) ?? String(value);
}

function fields(value: unknown, where: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value) || value instanceof Uint8Array) {
    throw fault(`${where} is ${show(value)}, expected a map`);
  }
  return value as Fields;
}

function int(map: Fields, key: string, where: string, min: number, max: number): number {
  const value = map[key];
  if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max) {
    throw fault(`${where}.${key} is ${show(value)}, expected an integer from ${min} to ${max}`);
  }
  return value;
}

function real(map: Fields, key: string, where: string): number {
  const value = map[key];
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw fault(`${where}.${key} is ${show(value)}, expected a finite number`);
  }
  return value;
}

function bool(map: Fields, key: string, where: string): boolean {
  const value = map[key];
  if (typeof value !== "boolean") throw fault(`${where}.${key} is ${show(value)}, expected true or false`);
  return value;
}

function text(map: Fields, key: string, where: string): string {
  const value = map[key];
  if (typeof value !== "string") throw fault(`${where}.${key} is ${show(value)}, expected a string`);
  return value;
}

function bin(map: Fields, key: string, where: string): Uint8Array {
  const value = map[key];
  if (!(value instanceof Uint8Array) || value.byteLength % 4 !== 0) {
    throw fault(`${where}.${key} is ${show(value)}, expected a bin of 4-byte numbers`);
  }
  return value;
}

function int32s(map: Fields, key: string, where: string): Int32Array {
  const bytes = bin(map, key, where);
  if (bytes.byteOffset % 4 === 0) return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const copy = new Int32Array(bytes.byteLength / 4);
  new Uint8Array(copy.buffer).set(bytes);
  return copy;
}

function float32s(map: Fields, key: string, where: string): Float32Array {
  const bytes = bin(map, key, where);
  if (bytes.byteOffset % 4 === 0) {
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }
  const copy = new Float32Array(bytes.byteLength / 4);
  new Uint8Array(copy.buffer).set(bytes);
  return copy;
}

function checkLength(
  actual: number,
  expected: number,
  names: { key: string; of: string; where: string },
): void {
  if (actual !== expected) {
    throw fault(`${names.where}.${names.key} has ${actual} entries, expected ${expected} (${names.of})`);
  }
}

/** Decodes the engine's frames on one connection; what `hello` said bounds the frames that follow. */
export class EngineFrameDecoder {
  readonly #unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: "number" });
  #info: EngineInfo | undefined;
  #steps: StepReader | undefined;

  /**
   * @param bytes hold one frame's body from `start` to `end`. The result's arrays may be views of them, or of what the next call overwrites.
   * @throws LinkFrameError with the place that is wrong
   */
  decode(bytes: Uint8Array, start = 0, end = bytes.length): EngineFrame {
    return this.#steps?.read(bytes, start, end) ?? this.#decode(bytes.subarray(start, end));
  }

  #decode(body: Uint8Array): EngineFrame {
    let value: unknown;
    try {
      value = this.#unpackr.unpack(body);
    } catch (error) {
      throw fault(`not MessagePack (${messageOf(error)})`);
    }
    const map = fields(value, "frame");
    const type = text(map, "type", "frame");
    if (type === "hello") {
      const frame = decodeHello(map);
      this.#info = frame.info;
      this.#steps = new StepReader(frame.info);
      return frame;
    }
    if (type === "error") return decodeError(map);
    if (this.#info === undefined) throw fault(`"${type}" came before "hello"`);
    switch (type) {
      case "step":
        return decodeStep(map, this.#info);
      case "begin":
        return decodeBegin(map, this.#info);
      case "end":
        return {
          type: "end",
          slot: int(map, "slot", "end", 0, this.#info.nSlots - 1),
          id: int(map, "id", "end", -MAX_INT, MAX_INT),
          reason: text(map, "reason", "end"),
        };
      default:
        throw fault(`unknown type "${type.slice(0, 40)}"`);
    }
  }
}

function decodeHello(map: Fields): HelloFrame {
  const version = int(map, "version", "hello", 0, MAX_INT);
  if (version !== PROTOCOL_VERSION) {
    throw new LinkFrameError(
      "version",
      `the engine speaks version ${version} of the draft link, this program version ${PROTOCOL_VERSION}`,
      "Build the engine that belongs to this program: npx aded engine build.",
    );
  }
  const info: EngineInfo = {
    model: text(map, "model", "hello"),
    nVocab: int(map, "n_vocab", "hello", 1, MAX_INT32),
    vocabHash: text(map, "vocab_hash", "hello"),
    nSlots: int(map, "n_slots", "hello", 1, 65536),
    maxNodes: int(map, "max_nodes", "hello", 0, 65536),
    tree: bool(map, "tree", "hello"),
    maxChain: int(map, "max_chain", "hello", 0, MAX_INT32),
    topK: int(map, "top_k", "hello", 0, 1024),
    // copies, since they outlive the frame
    costTokens: int32s(map, "cost_n", "hello").slice(),
    costUs: float32s(map, "cost_us", "hello").slice(),
    ...(map.tested_n === undefined ? {} : { exactness: decodeExactness(map) }),
  };
  if (!/^[0-9a-f]{16}$/.test(info.vocabHash)) {
    throw fault(`hello.vocab_hash is ${show(info.vocabHash)}, expected 16 hex digits`);
  }
  checkLength(info.costUs.length, info.costTokens.length, {
    key: "cost_us",
    of: "as many as cost_n",
    where: "hello",
  });
  for (let i = 0; i < info.costTokens.length; i++) {
    if (info.costTokens[i] <= (i === 0 ? 0 : info.costTokens[i - 1])) {
      throw fault(`hello.cost_n[${i}] = ${info.costTokens[i]} does not ascend`);
    }
    if (!(info.costUs[i] > 0 && info.costUs[i] < Number.POSITIVE_INFINITY)) {
      throw fault(`hello.cost_us[${i}] = ${info.costUs[i]} is no duration`);
    }
  }
  return { type: "hello", info };
}

function decodeExactness(map: Fields): Exactness {
  return {
    tested: [...int32s(map, "tested_n", "hello")],
    exact: [...int32s(map, "exact_n", "hello")],
    near_tie: real(map, "near_tie", "hello"),
  };
}

function decodeBegin(map: Fields, info: EngineInfo): BeginFrame {
  const sampling = fields(map.sampling, "begin.sampling");
  const tokens = int32s(map, "tokens", "begin");
  const wrong = rangeFault("tokens", tokens, info.nVocab);
  if (wrong !== undefined) throw fault(`begin.${wrong}`);
  return {
    type: "begin",
    request: {
      slot: int(map, "slot", "begin", 0, info.nSlots - 1),
      id: int(map, "id", "begin", -MAX_INT, MAX_INT),
      scope: text(map, "scope", "begin"),
      keep: int(map, "keep", "begin", 0, MAX_INT32),
      tokens,
      sampling: {
        greedy: bool(sampling, "greedy", "begin.sampling"),
        temperature: real(sampling, "temp", "begin.sampling"),
        grammar: bool(sampling, "grammar", "begin.sampling"),
        draft: bool(sampling, "draft", "begin.sampling"),
      },
    },
  };
}

function decodeStep(map: Fields, info: EngineInfo): StepFrame {
  const list = map.slots;
  if (!Array.isArray(list)) throw fault(`step.slots is ${show(list)}, expected an array`);
  const slots = new Array<VerifiedSlot>(list.length);
  for (let i = 0; i < list.length; i++) slots[i] = decodeSlot(list[i], `step.slots[${i}]`, info);
  return {
    type: "step",
    seq: int(map, "seq", "step", 0, MAX_INT32),
    ask: bool(map, "ask", "step"),
    budgetUs: int(map, "budget_us", "step", 0, MAX_INT),
    step: {
      spentUs: map.spent_us === undefined ? 0 : int(map, "spent_us", "step", 0, MAX_INT),
      decodeUs: int(map, "us", "step", 0, MAX_INT),
      nBatch: int(map, "n_batch", "step", 0, MAX_INT32),
      slots,
    },
  };
}

function decodeSlot(value: unknown, where: string, info: EngineInfo): VerifiedSlot {
  const map = fields(value, where);
  const slot: VerifiedSlot = {
    slot: int(map, "slot", where, 0, info.nSlots - 1),
    accepted: int32s(map, "accepted", where),
    nodes: int32s(map, "nodes", where),
    parents: int32s(map, "parents", where),
    path: int32s(map, "path", where),
    k: int(map, "k", where, 0, 1024),
    ids: int32s(map, "ids", where),
    probs: float32s(map, "probs", where),
    room: int(map, "room", where, 0, MAX_INT32),
    draft: bool(map, "draft", where),
  };
  const wrong = slotFault(slot, info);
  if (wrong !== undefined) throw fault(`${where}.${wrong}`);
  return slot;
}

function decodeError(map: Fields): ErrorFrame {
  return {
    type: "error",
    code: text(map, "code", "error"),
    message: text(map, "message", "error"),
    slot: map.slot === undefined || map.slot === null ? undefined : int(map, "slot", "error", -1, MAX_INT32),
  };
}

/** Encodes this side's frames, each with its length in front, ready to be written. */
export class PeerFrameEncoder {
  readonly #packr = new Packr({ useRecords: false, variableMapSize: true });
  readonly #drafts = new DraftWriter();

  /** @param topK successors per node that the engine is asked for, 1 … 64 */
  hello(topK: number): Buffer {
    return this.#frame({ type: "hello", version: PROTOCOL_VERSION, top_k: topK });
  }

  /**
   * The bytes are the caller's until the next draft, or for good once it calls `keepDraft`.
   *
   * @throws LinkFrameError when it would exceed the engine's limit of 1 MiB
   */
  draft(seq: number, drafts: readonly SlotDraft[]): Buffer {
    const bytes = draftBytes(drafts);
    if (bytes > MAX_PEER_BODY) {
      throw new LinkFrameError("bad_draft", `a draft of ${bytes} bytes exceeds ${MAX_PEER_BODY}`);
    }
    return this.#drafts.write(seq, drafts, bytes);
  }

  /** Whoever got the last draft still needs its bytes. */
  keepDraft(): void {
    this.#drafts.keep();
  }

  error(code: LinkFaultCode, message: string): Buffer {
    return this.#frame({ type: "error", code, message });
  }

  #frame(map: object): Buffer {
    const frame = this.#packr.pack(map, RESERVE_START_SPACE | 4);
    frame.writeUInt32LE(frame.length - 4, 0);
    return frame;
  }
}

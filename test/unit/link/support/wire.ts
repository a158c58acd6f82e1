/** The engine's end of the draft link for tests: plain msgpackr, no code shared with src/link. */
import { pack, unpack } from "msgpackr";

export function bytes(values: Int32Array | Float32Array): Buffer {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
}

export const i32 = (...values: number[]): Buffer => bytes(Int32Array.from(values));
export const f32 = (...values: number[]): Buffer => bytes(Float32Array.from(values));

export function frame(map: object): Buffer {
  const body = pack(map);
  const header = Buffer.alloc(4);
  header.writeUInt32LE(body.length);
  return Buffer.concat([header, body]);
}

/** MessagePack as the patched engine writes it: integers of four bytes, lengths of `bin` too. */
export function asEngine(value: unknown): Buffer {
  if (typeof value === "boolean") return Buffer.of(value ? 0xc3 : 0xc2);
  if (typeof value === "number") {
    if (value >= 0 && value < 128) return Buffer.of(value);
    const bytes = Buffer.of(0xd2, 0, 0, 0, 0);
    bytes.writeInt32BE(value, 1);
    return bytes;
  }
  if (typeof value === "string") return Buffer.concat([Buffer.of(0xa0 | value.length), Buffer.from(value)]);
  if (Buffer.isBuffer(value)) {
    const head = Buffer.of(0xc6, 0, 0, 0, 0);
    head.writeUInt32BE(value.length, 1);
    return Buffer.concat([head, value]);
  }
  if (Array.isArray(value)) return Buffer.concat([Buffer.of(0x90 | value.length), ...value.map(asEngine)]);
  const entries = Object.entries(value as object);
  return Buffer.concat([Buffer.of(0x80 | entries.length), ...entries.flat().map(asEngine)]);
}

export type Received = Record<string, unknown> & { type: string };

/** Splits complete frames off the front of `data`. */
export function parse(data: Buffer): { frames: Received[]; rest: Buffer } {
  const frames: Received[] = [];
  let rest = data;
  while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32LE(0)) {
    const end = 4 + rest.readUInt32LE(0);
    frames.push(unpack(rest.subarray(4, end)) as Received);
    rest = rest.subarray(end);
  }
  return { frames, rest };
}

export const helloMap = {
  type: "hello",
  version: 1,
  model: "toy",
  n_vocab: 1000,
  vocab_hash: "0123456789abcdef",
  n_slots: 2,
  max_nodes: 16,
  tree: true,
  max_chain: 0,
  top_k: 2,
  cost_n: i32(1, 2, 4),
  cost_us: f32(1000, 1100, 1300),
};

export const beginMap = {
  type: "begin",
  slot: 0,
  id: 7,
  scope: "",
  keep: 0,
  tokens: i32(1, 2, 3),
  sampling: { greedy: true, temp: 0, grammar: false, draft: true },
};

/** Root 3 with children 10 and 11; 11 was accepted, then 12 sampled. */
export const slotMap = {
  slot: 0,
  accepted: i32(11, 12),
  nodes: i32(3, 10, 11),
  parents: i32(-1, 0, 0),
  path: i32(0, 2),
  k: 2,
  ids: i32(11, 10, 5, 6, 12, 13),
  probs: f32(0.5, 0.25, 0.5, 0.25, 0.75, 0.125),
  room: 20,
  draft: true,
};

export function stepMap(seq: number, change: object = {}): Record<string, unknown> {
  return {
    type: "step",
    seq,
    us: 1234,
    n_batch: 3,
    ask: true,
    budget_us: 5000,
    slots: [slotMap],
    ...change,
  };
}

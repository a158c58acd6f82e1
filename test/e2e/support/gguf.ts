/** Writes GGUF files of chance weights: adapters and image encoders that are as small as the engine takes them. */
import { writeFileSync } from "node:fs";
import { Random } from "../../../src/drafter/random.ts";

/** Kinds of metadata values, by their numbers in the format (ggml/include/gguf.h). */
const TYPE = { u32: 4, f32: 6, bool: 7, text: 8, array: 9 } as const;
const MAGIC = 0x46554747;
const VERSION = 3;
const ALIGNMENT = 32;
/** ggml's number of F32 tensors. */
const F32 = 0;

export type GgufValue =
  | { u32: number }
  | { f32: number }
  | { bool: boolean }
  | { text: string }
  | { f32s: number[] };

/** Numbers of a tensor along each of its dimensions, the innermost first, and their standard deviation around `mean`. */
export interface ChanceTensor {
  shape: number[];
  deviation: number;
  /** @default 0 */
  mean?: number;
}

export function writeGguf(
  file: string,
  metadata: Record<string, GgufValue>,
  tensors: Record<string, ChanceTensor>,
  seed: number,
): void {
  const head: Buffer[] = [
    u32(MAGIC),
    u32(VERSION),
    u64(Object.keys(tensors).length),
    u64(Object.keys(metadata).length),
  ];
  for (const [key, value] of Object.entries(metadata)) head.push(text(key), ...encode(value));
  const random = new Random(seed);
  const data: Buffer[] = [];
  let offset = 0;
  for (const [name, tensor] of Object.entries(tensors)) {
    head.push(text(name), u32(tensor.shape.length), ...tensor.shape.map(u64), u32(F32), u64(offset));
    const weights = padded(chance(tensor, random));
    data.push(weights);
    offset += weights.length;
  }
  writeFileSync(file, Buffer.concat([padded(Buffer.concat(head)), ...data]));
}

function chance({ shape, deviation, mean = 0 }: ChanceTensor, random: Random): Buffer {
  const count = shape.reduce((product, n) => product * n, 1);
  // uniform, of that deviation
  const weights = Float32Array.from(
    { length: count },
    () => mean + (random.next() - 0.5) * deviation * Math.sqrt(12),
  );
  return Buffer.from(weights.buffer);
}

function encode(value: GgufValue): Buffer[] {
  if ("u32" in value) return [u32(TYPE.u32), u32(value.u32)];
  if ("f32" in value) return [u32(TYPE.f32), f32(value.f32)];
  if ("bool" in value) return [u32(TYPE.bool), Buffer.from([value.bool ? 1 : 0])];
  if ("text" in value) return [u32(TYPE.text), text(value.text)];
  return [u32(TYPE.array), u32(TYPE.f32), u64(value.f32s.length), ...value.f32s.map(f32)];
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & (ALIGNMENT - 1))]);
}

function text(value: string): Buffer {
  return Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

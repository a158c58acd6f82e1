import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeEach, describe, expect, it } from "@jest/globals";
import { chooseModels } from "../../../src/bench/verify-models.ts";
import { readWeights } from "../../../src/bench/verify-weights.ts";
import { parseConfig } from "../../../src/config.ts";
import { temporaryHome } from "../engine/support/temporary.ts";

const home = temporaryHome();

let file: string;
let quantizePath: string;
beforeEach(() => {
  file = path.join(home, "own.gguf");
  writeFileSync(file, "weights");
  quantizePath = path.join(home, "llama-quantize");
  writeFileSync(
    quantizePath,
    '#!/bin/sh\n[ "$1" = --allow-requantize ] && (cat "$2"; echo " as $4") > "$3"\n',
  );
  chmodSync(quantizePath, 0o755);
});

const config = parseConfig(
  `models:
  far: { engine: "http://127.0.0.1:1" }
  near: { source: "file:own.gguf", aliases: [nearer] }
`,
  { file: path.join(home, "aded.yaml"), env: {} },
);

const choose = (models: string[], types: string[] = []) =>
  chooseModels({ config, models, types, quantizePath });

describe("chooseModels", () => {
  it("takes the config's first model that has a file, names and aliases of the config, and paths", async () => {
    expect(await choose([])).toEqual([{ name: "near", file }]);
    expect(await choose(["nearer", file])).toEqual([
      { name: "nearer", file },
      { name: "own", file },
    ]);
  });

  it("takes known names, fetched if need be", async () => {
    const known = path.join(home, "models", "gemma-3-270m.Q4_K_M.gguf");
    mkdirSync(path.dirname(known), { recursive: true });
    writeFileSync(known, "gemma");
    expect(await choose(["gemma-3-270m"])).toEqual([{ name: "gemma-3-270m", file: known }]);
  });

  it("makes a copy of every type asked for", async () => {
    const copies = await choose(["near"], ["q8_0", "BF16"]);
    expect(copies.map(({ name }) => name)).toEqual(["near.Q8_0", "near.BF16"]);
    expect(copies.map((copy) => readFileSync(copy.file, "utf8"))).toEqual([
      "weights as Q8_0\n",
      "weights as BF16\n",
    ]);
    expect(copies.every((copy) => path.dirname(copy.file) === path.join(home, "models"))).toBe(true);
  });

  it("says what is wrong with a name", async () => {
    await expect(choose(["far"])).rejects.toThrow("runs in an engine of its own");
    await expect(choose(["no.gguf"])).rejects.toMatchObject({ hint: expect.stringContaining("far, near") });
    await expect(choose(["nonsense"])).rejects.toThrow("can't use 'nonsense'");
    await expect(
      chooseModels({
        config: { ...config, models: { far: config.models.far } },
        models: [],
        types: [],
        quantizePath,
      }),
    ).rejects.toThrow("no model of the config has a source");
  });
});

interface Tensor {
  name: string;
  dimensions: number[];
  type: number;
  bytes: number;
}

/** A GGUF file (version 3) whose metadata are unsigned integers and one text, with tensors of zeros. */
function gguf(numbers: Record<string, number>, tensors: readonly Tensor[]): Buffer {
  const u32 = (value: number): Buffer => {
    const buffer = Buffer.alloc(4);
    buffer.writeUInt32LE(value);
    return buffer;
  };
  const u64 = (value: number): Buffer => {
    const buffer = Buffer.alloc(8);
    buffer.writeBigUInt64LE(BigInt(value));
    return buffer;
  };
  const text = (value: string): Buffer => Buffer.concat([u64(value.length), Buffer.from(value)]);
  const head = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(Object.keys(numbers).length + 1)];
  head.push(text("general.architecture"), u32(8), text("toy"));
  for (const [key, value] of Object.entries(numbers)) head.push(text(key), u32(4), u32(value));
  let offset = 0;
  for (const { name, dimensions, type, bytes } of tensors) {
    head.push(text(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(offset));
    offset += bytes;
  }
  const info = Buffer.concat(head);
  return Buffer.concat([info, Buffer.alloc((32 - (info.length % 32)) % 32), Buffer.alloc(offset)]);
}

describe("readWeights", () => {
  const F32 = 0;
  const Q8_0 = 8;
  const embedding = { name: "token_embd.weight", dimensions: [32, 64], type: Q8_0, bytes: 2176 };
  const norm = { name: "output_norm.weight", dimensions: [32], type: F32, bytes: 128 };
  const read = (tensors: Tensor[], numbers: Record<string, number> = {}) => {
    writeFileSync(file, gguf(numbers, tensors));
    return readWeights(file);
  };

  it("counts the embedding where it is the head, and a head of its own instead of it", async () => {
    expect(await read([embedding, norm])).toEqual({
      bytes: 2304,
      parameters: 2048,
      types: { Q8_0: 2176, F32: 128 },
    });
    const head = { name: "output.weight", dimensions: [32, 64], type: F32, bytes: 8192 };
    expect(await read([embedding, norm, head])).toEqual({
      bytes: 8320,
      parameters: 2048,
      types: { F32: 8320 },
    });
  });

  it("counts of a mixture's experts those that a token uses", async () => {
    const experts = { name: "blk.0.ffn_up_exps.weight", dimensions: [32, 16, 8], type: F32, bytes: 16384 };
    const numbers = { "toy.expert_count": 8, "toy.expert_used_count": 2 };
    expect(await read([experts], numbers)).toEqual({ bytes: 4096, parameters: 1024, types: { F32: 4096 } });
  });

  it("is null for what is no GGUF file", async () => {
    writeFileSync(file, "weights");
    expect(await readWeights(file)).toBeNull();
    expect(await readWeights(path.join(home, "nothing.gguf"))).toBeNull();
  });
});

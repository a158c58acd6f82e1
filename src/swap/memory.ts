/**
 * Whether a model fits: what its file and arguments say that it needs, against the memory that this process may still take
 * (that of the machine, or of its container). An estimate: weights and cache are exact, the engine's own buffers are a
 * guess on the safe side.
 */
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { AdedError } from "../errors.ts";

export interface MemoryNeed {
  /** All sizes in bytes. */
  weights: number;
  cache: number;
  buffers: number;
  total: number;
  /** Positions of the cache that were counted. */
  context: number;
}

/** The part of a GGUF file's metadata that counts here. */
export interface ModelShape {
  layers: number;
  /** KV heads of each layer, or of all; 0 where a layer keeps no keys. */
  kvHeads: number | readonly number[];
  keyLength: number;
  valueLength: number;
  embedding: number;
  vocabulary: number;
  /** Positions that the model was trained for. */
  context: number;
}

/** Bytes per element of the cache types that llama-server takes (block sizes of ggml). */
const CACHE_BYTES: Record<string, number> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  q8_0: 34 / 32,
  q5_1: 24 / 32,
  q5_0: 22 / 32,
  q4_1: 20 / 32,
  q4_0: 18 / 32,
  iq4_nl: 18 / 32,
};

/** Code, graph and sampling of llama-server itself, bytes. */
const ENGINE_BYTES = 64 << 20;
/** Tokens of the batches whose graphs the engine keeps: `draft_graph_tokens` of patches/overlay/tools/server/server-draft-context.inl. */
export const KEPT_TOKENS = 192;

/** Value of the last of the flags in `names` among llama-server's arguments. */
export function argument(args: readonly string[], names: readonly string[]): string | undefined {
  let value: string | undefined;
  args.forEach((arg, i) => {
    const [flag, inline] = arg.split(/=(.*)/s);
    if (names.includes(flag)) value = inline ?? args[i + 1];
  });
  return value;
}

/** Layers that go to a GPU: their weights are not in this memory, and what a GPU holds is not known here. */
export function offloads(args: readonly string[]): boolean {
  const layers = argument(args, ["-ngl", "--gpu-layers", "--n-gpu-layers"]);
  return layers !== undefined && layers !== "0";
}

/** @param weights size of the model's files, bytes */
export function estimateNeed(shape: ModelShape, weights: number, args: readonly string[]): MemoryNeed {
  const asked = Number(argument(args, ["-c", "--ctx-size"]) ?? 0);
  const context = asked > 0 ? asked : shape.context;
  const typeK = argument(args, ["-ctk", "--cache-type-k"]) ?? "f16";
  const typeV = argument(args, ["-ctv", "--cache-type-v"]) ?? "f16";
  const bytesPerHead =
    shape.keyLength * (CACHE_BYTES[typeK] ?? 2) + shape.valueLength * (CACHE_BYTES[typeV] ?? 2);
  const heads =
    typeof shape.kvHeads === "number"
      ? shape.kvHeads * shape.layers
      : shape.kvHeads.reduce((sum, each) => sum + each, 0);
  const cache = context * heads * bytesPerHead;
  const batch = Number(argument(args, ["-ub", "--ubatch-size"]) ?? 512);
  // logits of a whole batch and of the graphs that are kept for drafts, and a few activations of each position in them
  const buffers = ENGINE_BYTES + (batch + KEPT_TOKENS) * 4 * (shape.vocabulary + 12 * shape.embedding);
  return { weights, cache, buffers, total: Math.round(weights + cache + buffers), context };
}

/** Reads shape and size of a GGUF file (of all its parts, where it is split); undefined when it can't be read. */
export async function readShape(file: string): Promise<{ shape: ModelShape; weights: number } | undefined> {
  // loaded on demand: it is large
  const { readGgufFileInfo } = await import("node-llama-cpp");
  try {
    const info = await readGgufFileInfo(file, {
      sourceType: "filesystem",
      logWarnings: false,
      readTensorInfo: false,
      ignoreKeys: ["tokenizer.ggml.merges"],
    });
    const { general, tokenizer } = info.metadata;
    const arch = info.architectureMetadata as unknown as Record<string, unknown>;
    const attention = (arch.attention ?? {}) as Record<string, unknown>;
    const embedding = numberOf(arch.embedding_length);
    const queryHeads = firstNumber(attention.head_count) || 1;
    const perHead = embedding / queryHeads;
    const tokens = tokenizer?.ggml?.tokens;
    const shape: ModelShape = {
      layers: numberOf(arch.block_count),
      kvHeads: Array.isArray(attention.head_count_kv)
        ? attention.head_count_kv.map(Number)
        : numberOf(attention.head_count_kv) || queryHeads,
      keyLength: numberOf(attention.key_length) || perHead,
      valueLength: numberOf(attention.value_length) || perHead,
      embedding,
      vocabulary: Array.isArray(tokens) ? tokens.length : numberOf(arch.vocab_size),
      context: numberOf(arch.context_length),
    };
    if (general.architecture === undefined || shape.layers === 0) return undefined;
    return { shape, weights: await sizeOfParts(file) };
  } catch {
    return undefined;
  }
}

function numberOf(value: unknown): number {
  return Number(value ?? 0) || 0;
}

function firstNumber(value: unknown): number {
  return numberOf(Array.isArray(value) ? Math.max(...value.map(Number)) : value);
}

async function sizeOfParts(file: string): Promise<number> {
  const split = /^(.*-)00001(-of-(\d{5})\.gguf)$/.exec(path.basename(file));
  if (split === null) return (await stat(file)).size;
  let total = 0;
  for (let part = 1; part <= Number(split[3]); part++) {
    const name = `${split[1]}${String(part).padStart(5, "0")}${split[2]}`;
    total += (await stat(path.join(path.dirname(file), name))).size;
  }
  return total;
}

export interface MemorySources {
  /** Text of a file; undefined when it is not there. */
  read(file: string): string | undefined;
}

/** Memory that this process may still take, bytes: that of the machine or of its control group, whichever is less. Undefined: not known. */
export function availableMemory(sources: MemorySources = { read: readText }): number | undefined {
  const limits = [machineMemory(sources), ...groupMemory(sources)].filter(
    (n): n is number => n !== undefined,
  );
  return limits.length > 0 ? Math.max(0, Math.min(...limits)) : undefined;
}

function machineMemory({ read }: MemorySources): number | undefined {
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(read("/proc/meminfo") ?? "")?.[1];
  return kib === undefined ? undefined : Number(kib) * 1024;
}

/** What each control group above this process leaves: its limit less what is used and can't be given back (cgroup v2 and v1). */
function groupMemory({ read }: MemorySources): number[] {
  const left: number[] = [];
  const own = /^0::(\/.*)$/m.exec(read("/proc/self/cgroup") ?? "")?.[1] ?? "/";
  const parts = own.split("/").filter((part) => part !== "" && part !== "..");
  for (let depth = parts.length; depth >= 0; depth--) {
    const folder = ["/sys/fs/cgroup", ...parts.slice(0, depth)].join("/");
    push(left, read(`${folder}/memory.max`), read(`${folder}/memory.current`), read(`${folder}/memory.stat`));
  }
  const v1 = "/sys/fs/cgroup/memory";
  push(
    left,
    read(`${v1}/memory.limit_in_bytes`),
    read(`${v1}/memory.usage_in_bytes`),
    read(`${v1}/memory.stat`),
  );
  return left;
}

function push(left: number[], max?: string, current?: string, stats?: string): void {
  const limit = Number(max?.trim());
  const used = Number(current?.trim());
  // v1 writes an enormous number where there is no limit
  if (!Number.isFinite(limit) || !Number.isFinite(used) || max?.trim() === "" || limit > 2 ** 60) return;
  const cached = Number(/^(?:total_)?inactive_file (\d+)$/m.exec(stats ?? "")?.[1] ?? 0);
  left.push(limit - used + cached);
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

export interface MemoryGuardOptions {
  /** Kept free, bytes. */
  reserve: number;
  available?: () => number | undefined;
}

/** Lets a model load only if there is memory for it, and counts what is promised to those that are still loading. */
export class MemoryGuard {
  readonly #options: MemoryGuardOptions;
  readonly #promised = new Map<string, number>();

  constructor(options: MemoryGuardOptions) {
    this.#options = options;
  }

  /** @throws AdedError ADED_MEMORY with the figures */
  claim(model: string, need: MemoryNeed | number): void {
    const available = (this.#options.available ?? availableMemory)();
    if (available === undefined) return;
    let promised = 0;
    for (const [other, bytes] of this.#promised) if (other !== model) promised += bytes;
    const total = typeof need === "number" ? need : need.total;
    const free = available - promised - this.#options.reserve;
    if (total <= free) {
      this.#promised.set(model, total);
      return;
    }
    const parts =
      typeof need === "number"
        ? "as the config says"
        : `weights ${mib(need.weights)}, cache of ${need.context} tokens ${mib(need.cache)}, buffers ${mib(need.buffers)}`;
    const loading = promised > 0 ? `, ${mib(promised)} of which models that are loading take` : "";
    throw new AdedError(
      "ADED_MEMORY",
      `it needs ${mib(total)} (${parts}), but ${mib(available)} are available${loading}, and ${mib(this.#options.reserve)} stay free`,
      {
        hint: "give it a smaller context (-c) or cache type (-ctk, -ctv), take a smaller file, or set its memory or swap.memory_guard",
      },
    );
  }

  /** The model is loaded, so that its memory shows as used; or it does not load after all. */
  settle(model: string): void {
    this.#promised.delete(model);
  }
}

function mib(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

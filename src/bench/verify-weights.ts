/** What a model makes a step read and compute, from its GGUF file: the two sides of a roofline. */
import { stat } from "node:fs/promises";
import type { GgufFileInfo, GgufTensorInfo } from "node-llama-cpp";

export interface ModelWeights {
  /** Weights that a step for one token reads, bytes as they lie in the file. */
  bytes: number;
  /** Weights that one token is multiplied with: two floating-point operations each. */
  parameters: number;
  /** `bytes` by tensor type. */
  types: Record<string, number>;
}

/** Tables of which a step reads a row per token; token_embd is the head too where no other one is there. */
const LOOKED_UP = ["per_layer_token_embd.weight"];
const EMBEDDING = "token_embd.weight";
const HEAD = "output.weight";
/** A mixture's experts, all of a layer in one tensor. */
const EXPERTS = /_exps\./;

/** Null: the file can't be read as GGUF. */
export async function readWeights(file: string): Promise<ModelWeights | null> {
  // loaded on demand: it is large
  const { GgmlType, readGgufFileInfo } = await import("node-llama-cpp");
  let info: GgufFileInfo;
  let sizes: Map<string, number>;
  try {
    info = await readGgufFileInfo(file, {
      sourceType: "filesystem",
      logWarnings: false,
      ignoreKeys: ["tokenizer.ggml.tokens", "tokenizer.ggml.merges"],
    });
    sizes = await tensorSizes(info);
  } catch {
    return null;
  }
  const tensors = info.fullTensorInfo ?? [];
  const ownHead = tensors.some(({ name }) => name === HEAD);
  const used = usedExperts(info);
  const weights: ModelWeights = { bytes: 0, parameters: 0, types: {} };
  for (const { name, dimensions, ggmlType } of tensors) {
    if (LOOKED_UP.includes(name) || (name === EMBEDDING && ownHead)) continue;
    const share = EXPERTS.test(name) ? used : 1;
    const bytes = Math.round((sizes.get(name) ?? 0) * share);
    const type = GgmlType[ggmlType] ?? String(ggmlType);
    weights.bytes += bytes;
    weights.types[type] = (weights.types[type] ?? 0) + bytes;
    if (dimensions.length < 2) continue;
    weights.parameters += Math.round(dimensions.reduce<number>((n, size) => n * Number(size), share));
  }
  return weights;
}

/** From where each tensor begins to where the next one does: at most 31 bytes of padding more than its size. */
async function tensorSizes({ fullTensorInfo, sourceData }: GgufFileInfo): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  const parts = new Map<number, GgufTensorInfo[]>();
  for (const tensor of fullTensorInfo ?? []) {
    const part = parts.get(tensor.filePart) ?? [];
    part.push(tensor);
    parts.set(tensor.filePart, part);
  }
  for (const [number, tensors] of parts) {
    const source = sourceData[number - 1];
    const end = source?.type === "path" ? (await stat(source.path)).size : 0;
    tensors.sort((a, b) => Number(a.fileOffset) - Number(b.fileOffset));
    for (const [i, { name, fileOffset }] of tensors.entries()) {
      sizes.set(name, Number(tensors[i + 1]?.fileOffset ?? end) - Number(fileOffset));
    }
  }
  return sizes;
}

/** Share of a mixture's experts that one token uses. */
function usedExperts({ architectureMetadata }: GgufFileInfo): number {
  const { expert_count: all, expert_used_count: used } = architectureMetadata as Partial<
    Record<"expert_count" | "expert_used_count", unknown>
  >;
  return typeof all === "number" && typeof used === "number" && all > 0 ? used / all : 1;
}

/** An adapter and an image encoder for SmolLM2 135M, of chance weights: they make other texts, no good ones. */
import { writeGguf } from "./gguf.ts";

const EMBD = 576;
const KV = 192;
const LAYERS = 30;
const RANK = 4;

/** A LoRA adapter of queries and values, strong enough to change every text. */
export function writeAdapter(file: string, seed: number): void {
  const metadata = {
    "general.type": { text: "adapter" },
    "general.architecture": { text: "llama" },
    "adapter.type": { text: "lora" },
    "adapter.lora.alpha": { f32: 8 },
  };
  const pairs = Array.from({ length: LAYERS }, (_, layer) =>
    [
      ["attn_q", EMBD],
      ["attn_v", KV],
    ].flatMap(([name, width]) => [
      [`blk.${layer}.${name}.weight.lora_a`, { shape: [EMBD, RANK], deviation: 0.05 }],
      [`blk.${layer}.${name}.weight.lora_b`, { shape: [RANK, width], deviation: 0.05 }],
    ]),
  ).flat();
  writeGguf(file, metadata, Object.fromEntries(pairs), seed);
}

/** Pixels along each side of what the encoder sees, and of the squares it is cut into. */
const IMAGE = 32;
const PATCH = 8;
/** How wide the encoder is. */
const WIDTH = 32;

/** An encoder in the form of Gemma 3's, whose 16 tokens of an image are decoded at once and see each other. */
export function writeImageEncoder(file: string, seed: number): void {
  const metadata = {
    "general.type": { text: "mmproj" },
    "general.architecture": { text: "clip" },
    "clip.has_vision_encoder": { bool: true },
    "clip.projector_type": { text: "gemma3" },
    "clip.use_gelu": { bool: true },
    "clip.vision.embedding_length": { u32: WIDTH },
    "clip.vision.feed_forward_length": { u32: 2 * WIDTH },
    "clip.vision.block_count": { u32: 1 },
    "clip.vision.projection_dim": { u32: EMBD },
    "clip.vision.attention.head_count": { u32: 2 },
    "clip.vision.attention.layer_norm_epsilon": { f32: 1e-6 },
    "clip.vision.image_size": { u32: IMAGE },
    "clip.vision.patch_size": { u32: PATCH },
    "clip.vision.projector.scale_factor": { u32: 1 },
    "clip.vision.image_mean": { f32s: [0.5, 0.5, 0.5] },
    "clip.vision.image_std": { f32s: [0.5, 0.5, 0.5] },
  };
  const square = { shape: [WIDTH, WIDTH], deviation: 0.3 };
  const bias = { shape: [WIDTH], deviation: 0.1 };
  const norm = { shape: [WIDTH], deviation: 0.1, mean: 1 };
  const tensors = {
    "v.patch_embd.weight": { shape: [PATCH, PATCH, 3, WIDTH], deviation: 0.3 },
    "v.patch_embd.bias": bias,
    "v.position_embd.weight": { shape: [WIDTH, (IMAGE / PATCH) ** 2], deviation: 0.3 },
    "v.blk.0.ln1.weight": norm,
    "v.blk.0.ln1.bias": bias,
    "v.blk.0.attn_q.weight": square,
    "v.blk.0.attn_k.weight": square,
    "v.blk.0.attn_v.weight": square,
    "v.blk.0.attn_out.weight": square,
    "v.blk.0.ln2.weight": norm,
    "v.blk.0.ln2.bias": bias,
    "v.blk.0.ffn_up.weight": { shape: [WIDTH, 2 * WIDTH], deviation: 0.3 },
    "v.blk.0.ffn_down.weight": { shape: [2 * WIDTH, WIDTH], deviation: 0.3 },
    "v.post_ln.weight": norm,
    "v.post_ln.bias": bias,
    "mm.input_projection.weight": { shape: [EMBD, WIDTH], deviation: 0.02 },
    "mm.soft_emb_norm.weight": norm,
  };
  writeGguf(file, metadata, tensors, seed);
}

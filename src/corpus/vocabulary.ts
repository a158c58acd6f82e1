/**
 * What a corpus must know of a model: its vocabulary's hash (the key of everything learnt, the same as the engine's
 * `hello` tells), the kind of its tokenizer, and its chat template. Read from the GGUF file alone.
 */
import { readGgufFileInfo } from "node-llama-cpp";
import { AdedError, messageOf } from "../errors.ts";

export interface Vocabulary {
  /** 16 hex digits: FNV-1a 64 over every token's text, length-prefixed (docs/protocol.md, 1.3). */
  hash: string;
  /** Number of tokens. */
  size: number;
  /** Kind of tokenizer, e.g. "gpt2/smollm". */
  tokenizer: string;
  /** Jinja source of the chat template, if the model has one. */
  chatTemplate?: string;
  /** Text of the tokens that chat templates refer to; "" where there is none. */
  bos: string;
  eos: string;
}

interface TokenizerMetadata {
  model?: string;
  pre?: string;
  tokens?: readonly string[];
  bos_token_id?: number;
  eos_token_id?: number;
}

/** @throws AdedError ADED_CORPUS when the file is no GGUF model with a vocabulary */
export async function readVocabulary(modelPath: string, signal?: AbortSignal): Promise<Vocabulary> {
  let metadata: { tokenizer?: { ggml?: TokenizerMetadata; chat_template?: unknown } };
  try {
    const info = await readGgufFileInfo(modelPath, {
      readTensorInfo: false,
      sourceType: "filesystem",
      logWarnings: false,
      signal,
    });
    metadata = info.metadata as unknown as typeof metadata;
  } catch (error) {
    signal?.throwIfAborted();
    throw new AdedError("ADED_CORPUS", `${modelPath} can't be read as a GGUF model: ${messageOf(error)}`, {
      hint: "name a .gguf file after --model",
      cause: error,
    });
  }
  const ggml = metadata.tokenizer?.ggml;
  const tokens = ggml?.tokens;
  if (ggml === undefined || tokens === undefined || tokens.length === 0) {
    throw new AdedError("ADED_CORPUS", `${modelPath} holds no vocabulary`, {
      hint: "name the GGUF file of a language model after --model",
    });
  }
  const template = metadata.tokenizer?.chat_template;
  return {
    hash: vocabularyHash(tokens),
    size: tokens.length,
    tokenizer: ggml.pre ? `${ggml.model}/${ggml.pre}` : String(ggml.model),
    chatTemplate: typeof template === "string" ? template : undefined,
    bos: tokens[ggml.bos_token_id ?? -1] ?? "",
    eos: tokens[ggml.eos_token_id ?? -1] ?? "",
  };
}

/** FNV-1a 64 over every token: its length in bytes as 4 bytes little-endian, then its UTF-8 text (up to a NUL, as C sees it). */
export function vocabularyHash(tokens: readonly string[]): string {
  const encoder = new TextEncoder();
  let low = 0x84222325;
  let high = 0xcbf29ce4;
  const add = (byte: number): void => {
    low = (low ^ byte) >>> 0;
    // times 2^40 + 0x1b3: the products stay below 2^53
    const product = low * 0x1b3;
    high = (high * 0x1b3 + Math.floor(product / 2 ** 32) + low * 2 ** 8) % 2 ** 32;
    low = product % 2 ** 32;
  };
  for (let id = 0; id < tokens.length; id++) {
    const text = tokens[id];
    const bytes = encoder.encode(text === "" ? `[EMPTY_${id}]` : text);
    const end = bytes.indexOf(0);
    const size = end < 0 ? bytes.length : end;
    for (let shift = 0; shift < 32; shift += 8) add((size >>> shift) & 0xff);
    for (let i = 0; i < size; i++) add(bytes[i]);
  }
  const hex = (word: number): string => word.toString(16).padStart(8, "0");
  return hex(high) + hex(low);
}

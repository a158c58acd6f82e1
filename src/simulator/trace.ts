/** A recorded text: what the model wrote, and what it thought likely at every position of it. */
import type { OffPath } from "./off-path.ts";

export interface Trace {
  /** Unique within a file. */
  id: string;
  category: string;
  /** Temperature that the text was sampled at; 0: greedy. */
  temperature: number;
  /** Token ids of the prompt, at least one. */
  prompt: Int32Array;
  /** Token ids of the output. */
  tokens: Int32Array;
  /** Successors recorded per position. */
  k: number;
  /** The model's k likeliest tokens at each position of the output, likeliest first. Length tokens.length * k. */
  ids: Int32Array;
  /** Their probabilities at temperature 1. Same length. */
  probs: Float32Array;
  /** What the model answered at nodes that the text did not take, as far as it is known. */
  offPath?: OffPath;
}

/** A vocabulary that holds every token of the traces, where nothing tells its real size. */
export function vocabularyOf(traces: readonly Trace[]): number {
  let most = 0;
  for (const { prompt, tokens, ids } of traces) {
    for (const list of [prompt, tokens, ids]) for (const id of list) if (id > most) most = id;
  }
  return most + 1;
}

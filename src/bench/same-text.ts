/**
 * Whether drafts change the text, and where they do, whether it is a near-tie. Each prompt is answered greedily with
 * drafts off and on, token by token with log-probabilities. Verifying many tokens at once and decoding them one by one
 * use different kernels, so log-probabilities differ by rounding noise, and where the two likeliest tokens are closer
 * than that noise, the likelier one can change. The noise is measured on the very positions that both answers share.
 */
import { AdedError, messageOf } from "../errors.ts";
import type { Arm } from "./chat-client.ts";
import type { BenchPrompt } from "./prompts.ts";
import { quantile } from "./statistics.ts";

/** Successors that are asked for at each position. */
const TOP = 10;

export interface TokenLogprob {
  id: number;
  logprob: number;
}

/** One answer: per position the token, its log-probability, and the likeliest tokens, likeliest first. */
export interface TokenRun {
  tokens: number[];
  logprobs: number[];
  top: TokenLogprob[][];
  /** Draft tokens that were accepted; 0 with drafts off. */
  accepted: number;
}

export interface TextDifference {
  id: string;
  category: string;
  /** Position of the first token that differs. */
  index: number;
  /** Tokens there, with drafts off and on; null: that answer ended here. */
  off: number | null;
  on: number | null;
  /** How much likelier (nats, by the answer without drafts) its own token was than the other's; null: not in its top. */
  margin: number | null;
  /** The margin is below the largest noise seen. */
  near_tie: boolean;
}

export interface SameTextReport {
  n: number;
  same_text: number;
  near_ties: number;
  tokens_per_step: number | null;
  /** |change| of the margin between the two likeliest tokens, drafts on against off, nats; over all shared positions. */
  margin_noise: { positions: number; p50: number | null; p99: number | null; max: number | null };
  /** |change| of the log-probability reported for the emitted token, nats. */
  logprob_noise: { p50: number | null; p99: number | null; max: number | null };
  differences: TextDifference[];
}

/** Index of the first token that differs, or -1 when both are the same. */
export function firstDifference(a: readonly number[], b: readonly number[]): number {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) if (a[i] !== b[i]) return i;
  return a.length === b.length ? -1 : n;
}

function logprobOf(top: readonly TokenLogprob[] | undefined, id: number | undefined): number | undefined {
  return top?.find((entry) => entry.id === id)?.logprob;
}

export interface SameTextPair {
  prompt: BenchPrompt;
  off: TokenRun;
  on: TokenRun;
}

/** @throws AdedError ADED_BENCH when no draft was accepted in any answer: then nothing was tested */
export function reportSameText(pairs: readonly SameTextPair[]): SameTextReport {
  const marginNoise: number[] = [];
  const logprobNoise: number[] = [];
  const differences: TextDifference[] = [];
  let emitted = 0;
  let accepted = 0;
  for (const { prompt, off, on } of pairs) {
    emitted += on.tokens.length;
    accepted += on.accepted;
    const index = firstDifference(off.tokens, on.tokens);
    const shared = index < 0 ? off.tokens.length : index;
    // the position of the first difference has the same context too
    for (let i = 0; i < Math.min(shared + 1, off.top.length, on.top.length); i++) {
      const [first, second] = off.top[i];
      const a = logprobOf(on.top[i], first?.id);
      const b = logprobOf(on.top[i], second?.id);
      if (a !== undefined && b !== undefined) {
        marginNoise.push(Math.abs(a - b - (first.logprob - second.logprob)));
      }
      if (i < shared) logprobNoise.push(Math.abs(on.logprobs[i] - off.logprobs[i]));
    }
    if (index < 0) continue;
    const own = logprobOf(off.top[index], off.tokens[index]);
    const other = logprobOf(off.top[index], on.tokens[index]);
    differences.push({
      id: prompt.id,
      category: prompt.category,
      index,
      off: off.tokens[index] ?? null,
      on: on.tokens[index] ?? null,
      margin: own === undefined || other === undefined ? null : own - other,
      near_tie: false,
    });
  }
  if (accepted === 0) {
    throw new AdedError("ADED_BENCH", "no draft was accepted in any answer, so nothing was tested", {
      hint: "Look at /aded/status: is the link connected, and are drafts on for this model?",
    });
  }
  marginNoise.sort((x, y) => x - y);
  logprobNoise.sort((x, y) => x - y);
  const max = marginNoise.at(-1) ?? 0;
  for (const difference of differences) {
    difference.near_tie = difference.margin !== null && difference.margin <= max;
  }
  return {
    n: pairs.length,
    same_text: pairs.length - differences.length,
    near_ties: differences.filter((difference) => difference.near_tie).length,
    tokens_per_step: emitted > accepted ? emitted / (emitted - accepted) : null,
    margin_noise: {
      positions: marginNoise.length,
      p50: quantile(marginNoise, 0.5),
      p99: quantile(marginNoise, 0.99),
      max: marginNoise.at(-1) ?? null,
    },
    logprob_noise: {
      p50: quantile(logprobNoise, 0.5),
      p99: quantile(logprobNoise, 0.99),
      max: logprobNoise.at(-1) ?? null,
    },
    differences,
  };
}

export interface SameTextOptions {
  prompts: readonly BenchPrompt[];
  maxTokens: number;
  /** Requests of one arm at once. 1: the arms of each prompt follow each other. */
  concurrency: number;
  apiKey?: string;
  model?: string;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

/** Answers every prompt in both arms. @throws AdedError ADED_BENCH when the server cannot be reached or refuses */
export async function runSameText(url: string, options: SameTextOptions): Promise<SameTextPair[]> {
  const { prompts, concurrency, onProgress } = options;
  const client = new CompletionClient(url, options);
  let done = 0;
  const answer = async (prompt: BenchPrompt, arm: Arm): Promise<TokenRun> => {
    const run = await client.complete(prompt, arm);
    onProgress?.(++done, 2 * prompts.length);
    return run;
  };
  const pairs: SameTextPair[] = [];
  // blocks as large as the concurrency: each arm of a block runs alone, so that the arms never share a batch
  for (let i = 0; i < prompts.length; i += concurrency) {
    const block = prompts.slice(i, i + concurrency);
    const off = await Promise.all(block.map((prompt) => answer(prompt, "off")));
    const on = await Promise.all(block.map((prompt) => answer(prompt, "on")));
    for (const [j, prompt] of block.entries()) pairs.push({ prompt, off: off[j], on: on[j] });
  }
  return pairs;
}

interface CompletionAnswer {
  completion_probabilities: { id: number; logprob: number; top_logprobs: TokenLogprob[] }[];
  timings: { draft_n_accepted?: number };
}

class CompletionClient {
  readonly #url: string;
  readonly #options: SameTextOptions;

  constructor(url: string, options: SameTextOptions) {
    this.#url = url.replace(/\/+$/, "");
    this.#options = options;
  }

  async complete(prompt: BenchPrompt, arm: Arm): Promise<TokenRun> {
    const { maxTokens, model } = this.#options;
    const messages = [{ role: "user", content: prompt.text }];
    const template = (await this.#post("/apply-template", { messages, model }, arm)) as { prompt: string };
    const answer = (await this.#post(
      "/completion",
      {
        prompt: template.prompt,
        n_predict: maxTokens,
        temperature: 0,
        n_probs: TOP,
        cache_prompt: false,
        model,
      },
      arm,
    )) as CompletionAnswer;
    const positions = answer.completion_probabilities ?? [];
    return {
      tokens: positions.map(({ id }) => id),
      logprobs: positions.map(({ logprob }) => logprob),
      top: positions.map(({ top_logprobs }) => top_logprobs.map(({ id, logprob }) => ({ id, logprob }))),
      accepted: answer.timings?.draft_n_accepted ?? 0,
    };
  }

  async #post(path: string, body: object, arm: Arm): Promise<unknown> {
    const { apiKey, signal } = this.#options;
    const headers: Record<string, string> = { "content-type": "application/json", "x-aded": arm };
    if (apiKey !== undefined) headers.authorization = `Bearer ${apiKey}`;
    let response: Response;
    let text: string;
    try {
      response = await fetch(this.#url + path, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
        signal,
      });
      text = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      throw new AdedError("ADED_BENCH", `${this.#url}${path}: ${messageOf(error)}`, {
        hint: "Is the server running, and is the address right?",
        cause: error,
      });
    }
    if (!response.ok) {
      throw new AdedError(
        "ADED_BENCH",
        `${this.#url}${path} answered ${response.status}: ${text.slice(0, 300)}`,
      );
    }
    return JSON.parse(text);
  }
}

/** Asks for a completion and takes the answer apart: tokens, log-probabilities, drafts. */
import type { Endpoint } from "./endpoint.ts";

export type Arm = "on" | "off";

export interface TokenChoice {
  id: number;
  logprob: number;
}

export interface Generated {
  text: string;
  finish: string;
  ids: number[];
  /** Log-probability of each token, natural. */
  logprobs: number[];
  /** The likeliest tokens at each position, likeliest first. */
  top: TokenChoice[][];
  /** Draft nodes verified, and accepted; undefined when the request ran plain. */
  drafted?: number;
  accepted?: number;
}

export interface Timings {
  predicted_n: number;
  draft_n?: number;
  draft_n_accepted?: number;
}

interface LoggedToken extends TokenChoice {
  top_logprobs: TokenChoice[];
}

export interface ChatAnswer {
  choices: {
    index: number;
    finish_reason: string;
    message: { content: string };
    logprobs?: { content: LoggedToken[] };
  }[];
  usage: { prompt_tokens: number; completion_tokens: number };
  timings: Timings;
}

/** How many of the likeliest tokens `chat` looks at. */
export const TOP = 5;

/**
 * One answer of /v1/chat/completions to `content`, with the log-probabilities of its tokens. The prompt is evaluated
 * whole, so that both arms start from the same state of the cache.
 */
export async function chat(
  endpoint: Endpoint,
  content: string,
  options: Record<string, unknown>,
  arm: Arm,
): Promise<Generated> {
  const body = {
    messages: [{ role: "user", content }],
    cache_prompt: false,
    logprobs: true,
    top_logprobs: TOP,
    ...options,
  };
  const { choices, timings } = await endpoint.post<ChatAnswer>("/v1/chat/completions", body, {
    "x-aded": arm,
  });
  const [{ message, finish_reason, logprobs }] = choices;
  const logged = logprobs?.content ?? [];
  return {
    text: message.content,
    finish: finish_reason,
    ids: logged.map(({ id }) => id),
    logprobs: logged.map(({ logprob }) => logprob),
    top: logged.map(({ top_logprobs }) => top_logprobs.map(({ id, logprob }) => ({ id, logprob }))),
    drafted: timings.draft_n,
    accepted: timings.draft_n_accepted,
  };
}

/** First index at which the two differ; their common length when one is the beginning of the other. */
export function firstDifference(a: readonly number[], b: readonly number[]): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return length;
}

/** Largest difference of the log-probabilities of tokens that both name, over the first `count` positions. */
export function logprobNoise(a: Generated, b: Generated, count: number): number {
  let largest = 0;
  for (let i = 0; i < count; i++) {
    const known = new Map(b.top[i].map(({ id, logprob }) => [id, logprob]));
    for (const { id, logprob } of a.top[i]) {
      const other = known.get(id);
      if (other !== undefined) largest = Math.max(largest, Math.abs(logprob - other));
    }
  }
  return largest;
}

/** An answer of llama-server's own /completion. */
export interface Completion {
  content: string;
  /** Ids of the tokens; asked for with `return_tokens`. */
  tokens: number[];
  stop_type: string;
  stopping_word: string;
  truncated: boolean;
  tokens_evaluated: number;
  tokens_cached: number;
  timings: Timings & { cache_n: number; prompt_n: number };
  completion_probabilities?: {
    id: number;
    logprob?: number;
    prob?: number;
    top_logprobs?: TokenChoice[];
    top_probs?: { id: number; prob: number }[];
  }[];
}

/** One answer of /completion; greedy unless `body` says otherwise. */
export function complete(endpoint: Endpoint, body: Record<string, unknown>, arm: Arm): Promise<Completion> {
  const defaults = { temperature: 0, n_predict: 32, cache_prompt: false, return_tokens: true };
  return endpoint.post<Completion>("/completion", { ...defaults, ...body }, { "x-aded": arm });
}

/** What a completion is to its reader: text, tokens, and why it ended. */
export function visible({ content, tokens, stop_type, stopping_word, truncated }: Completion) {
  return { content, tokens, stop_type, stopping_word, truncated };
}

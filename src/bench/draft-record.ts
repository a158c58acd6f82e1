/**
 * Records whole texts as traces from a running llama-server (stock or patched, directly or through the proxy): its chat template, its token
 * ids, and the likeliest tokens at every position.
 */
import { Agent, request } from "undici";
import { AdedError, messageOf } from "../errors.ts";
import type { Trace } from "../simulator/trace.ts";
import type { BenchPrompt } from "./prompts.ts";

export interface RecordOptions {
  prompts: readonly BenchPrompt[];
  /** Longest answer, tokens. */
  maxTokens: number;
  /** Likeliest tokens per position. */
  topK: number;
  /** 0: greedy. */
  temperature: number;
  seed: number;
  /** Requests at once. @default 1 */
  concurrency?: number;
  apiKey?: string;
  /** Name of the model, where the server has several. */
  model?: string;
  signal?: AbortSignal;
  /** Told of every text as it ends. */
  onTrace?: (trace: Trace, done: number) => void;
}

interface Completion {
  tokens?: number[];
  completion_probabilities?: { id: number; top_logprobs: { id: number; logprob: number }[] }[];
}

const TIMEOUT_MS = 600_000;
const HINT = "Recording takes a llama-server (stock or patched), or this program's proxy before one.";

/**
 * Traces of all prompts, in their order; answers of less than two tokens are left out.
 * @throws AdedError ADED_ENGINE_UNREACHABLE, ADED_BENCH (an answer that is none), the signal's reason
 */
export async function recordTexts(url: string, options: RecordOptions): Promise<Trace[]> {
  const { prompts, concurrency = 1, signal, onTrace } = options;
  const server = new TextServer(url, options, concurrency);
  const traces: (Trace | undefined)[] = new Array(prompts.length);
  let next = 0;
  let done = 0;
  const work = async (): Promise<void> => {
    while (next < prompts.length) {
      signal?.throwIfAborted();
      const index = next++;
      const trace = await server.trace(prompts[index]);
      done++;
      if (trace.tokens.length < 2) continue;
      traces[index] = trace;
      onTrace?.(trace, done);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(concurrency, prompts.length) }, work));
  } finally {
    await server.close();
  }
  return traces.filter((trace) => trace !== undefined);
}

class TextServer {
  readonly #url: string;
  readonly #options: RecordOptions;
  readonly #agent: Agent;
  readonly #headers: Record<string, string>;

  constructor(url: string, options: RecordOptions, connections: number) {
    this.#url = url.replace(/\/+$/, "").replace(/\/v1$/, "");
    this.#options = options;
    this.#agent = new Agent({ connections, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
    this.#headers = { "content-type": "application/json" };
    if (options.apiKey !== undefined) this.#headers.authorization = `Bearer ${options.apiKey}`;
  }

  close(): Promise<void> {
    return this.#agent.destroy();
  }

  async trace({ id, category, text }: BenchPrompt): Promise<Trace> {
    const { maxTokens, temperature, seed, topK } = this.#options;
    const template = await this.#post("/apply-template", { messages: [{ role: "user", content: text }] });
    const tokenized = await this.#post("/tokenize", {
      content: template.prompt,
      add_special: true,
      parse_special: true,
    });
    const prompt = numbersOf(tokenized.tokens, "/tokenize");
    const completion = (await this.#post("/completion", {
      prompt,
      n_predict: maxTokens,
      temperature,
      seed,
      n_probs: topK,
      return_tokens: true,
      cache_prompt: false,
    })) as Completion;
    const tokens = numbersOf(completion.tokens, "/completion");
    const rows = completion.completion_probabilities ?? [];
    // a token that ends the text, or a part of a stop string, has no row
    const n = Math.min(tokens.length, rows.length);
    const ids = new Int32Array(n * topK).fill(-1);
    const probs = new Float32Array(n * topK);
    for (let at = 0; at < n; at++) {
      for (const [j, { id, logprob }] of rows[at].top_logprobs.slice(0, topK).entries()) {
        ids[at * topK + j] = id;
        probs[at * topK + j] = Math.exp(logprob);
      }
    }
    return {
      id,
      category,
      temperature,
      prompt: Int32Array.from(prompt),
      tokens: Int32Array.from(tokens.slice(0, n)),
      k: topK,
      ids,
      probs,
    };
  }

  async #post(path: string, body: Record<string, unknown>): Promise<Record<string, unknown>> {
    const { model, signal } = this.#options;
    let status: number;
    let answer: string;
    try {
      const response = await request(this.#url + path, {
        method: "POST",
        dispatcher: this.#agent,
        headers: this.#headers,
        body: JSON.stringify({ model, ...body }),
        signal,
      });
      status = response.statusCode;
      answer = await response.body.text();
    } catch (cause) {
      signal?.throwIfAborted();
      throw new AdedError("ADED_ENGINE_UNREACHABLE", `${this.#url} cannot be reached: ${messageOf(cause)}`, {
        hint: HINT,
        cause,
      });
    }
    const value = status === 200 ? parsed(answer) : undefined;
    if (value !== undefined) return value;
    throw new AdedError("ADED_BENCH", `POST ${path} was answered ${status}: ${answer.slice(0, 300)}`, {
      hint: HINT,
    });
  }
}

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function numbersOf(value: unknown, path: string): number[] {
  if (Array.isArray(value) && value.every((item) => Number.isInteger(item))) return value as number[];
  throw new AdedError("ADED_BENCH", `POST ${path} gave no token ids`, { hint: HINT });
}

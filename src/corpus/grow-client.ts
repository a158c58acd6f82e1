/** Asks a running server for its own words: tokens with the model's likeliest successors at each of them. */
import { Agent, request } from "undici";
import { SseReader } from "../bench/sse.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { GrowPrompt } from "./grow-prompts.ts";

/** One generated token. */
export interface GrownToken {
  id: number;
  /** The model's likeliest tokens there. */
  ids: number[];
  /** Their probabilities at temperature 1. */
  probs: number[];
}

export interface GenerateRequest {
  /** Token ids of prompt and answer so far. */
  tokens: readonly number[];
  maxTokens: number;
  temperature: number;
  seed: number;
  topK: number;
}

const TIMEOUT_MS = 600_000;

export class GrowClient {
  readonly #url: string;
  readonly #agent = new Agent({ connections: 4, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
  readonly #headers: Record<string, string>;
  readonly #model: string | undefined;

  /** @param url origin of the server @param model what the requests ask for; undefined: the server's own */
  constructor(url: string, { apiKey, model }: { apiKey?: string; model?: string } = {}) {
    this.#url = url.replace(/\/+$/, "").replace(/\/v1$/, "");
    this.#model = model;
    this.#headers = { "content-type": "application/json" };
    if (apiKey !== undefined) this.#headers.authorization = `Bearer ${apiKey}`;
  }

  close(): Promise<void> {
    return this.#agent.destroy();
  }

  /** Path of the model file, as the server knows it. */
  async modelPath(signal?: AbortSignal): Promise<string | undefined> {
    const query = this.#model === undefined ? "" : `?model=${encodeURIComponent(this.#model)}`;
    const props = (await this.#get(`/props${query}`, signal)) as { model_path?: unknown } | undefined;
    return typeof props?.model_path === "string" ? props.model_path : undefined;
  }

  /**
   * How many requests the server is answering, ours included; undefined when it does not tell. The proxy tells by its status, a
   * llama-server by its slots.
   */
  async running(signal?: AbortSignal): Promise<number | undefined> {
    const status = (await this.#get("/aded/status", signal)) as { running?: unknown } | undefined;
    if (typeof status?.running === "number") return status.running;
    const slots = await this.#get("/slots", signal);
    if (!Array.isArray(slots)) return undefined;
    return slots.filter((slot: { is_processing?: unknown } | null) => slot?.is_processing === true).length;
  }

  /** Token ids of a prompt, with the model's chat template around what a user says. */
  async tokenize({ text, chat }: GrowPrompt, signal?: AbortSignal): Promise<number[]> {
    let content = text;
    if (chat) {
      const messages = [{ role: "user", content: text }];
      const { prompt } = (await this.#post("/apply-template", { messages }, signal)) as { prompt: string };
      content = prompt;
    }
    const body = { content, add_special: true, parse_special: chat };
    const { tokens } = (await this.#post("/tokenize", body, signal)) as { tokens: number[] };
    return tokens;
  }

  /**
   * The tokens of an answer, as they come. Leaving the loop early breaks the request off.
   * @throws AdedError ADED_ENGINE_UNREACHABLE, ADED_CORPUS
   */
  async *generate(asked: GenerateRequest, signal?: AbortSignal): AsyncGenerator<GrownToken> {
    const body = {
      model: this.#model,
      prompt: asked.tokens,
      n_predict: asked.maxTokens,
      temperature: asked.temperature,
      seed: asked.seed,
      n_probs: asked.topK,
      cache_prompt: true,
      return_tokens: true,
      stream: true,
    };
    const stop = new AbortController();
    const either = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
    try {
      const response = await this.#send("/completion", body, either);
      const events = new SseReader();
      for await (const chunk of response.body) {
        for (const data of events.push(chunk as Buffer)) if (data !== "[DONE]") yield* tokensOf(data);
      }
    } catch (error) {
      throw this.#failure(error, signal);
    } finally {
      stop.abort();
    }
  }

  async #get(path: string, signal?: AbortSignal): Promise<unknown> {
    try {
      const response = await request(this.#url + path, {
        dispatcher: this.#agent,
        headers: this.#headers,
        signal,
      });
      const text = await response.body.text();
      return response.statusCode === 200 ? (JSON.parse(text) as unknown) : undefined;
    } catch (error) {
      if (error instanceof SyntaxError) return undefined;
      throw this.#failure(error, signal);
    }
  }

  async #post(path: string, body: object, signal?: AbortSignal): Promise<unknown> {
    try {
      const response = await this.#send(path, { model: this.#model, ...body }, signal);
      return await response.body.json();
    } catch (error) {
      throw this.#failure(error, signal);
    }
  }

  async #send(path: string, body: object, signal?: AbortSignal) {
    const response = await request(this.#url + path, {
      method: "POST",
      dispatcher: this.#agent,
      headers: this.#headers,
      body: JSON.stringify(body),
      signal,
      // llama-server closes a connection after a stream without saying so
      reset: true,
    });
    if (response.statusCode === 200) return response;
    const answer = (await response.body.text()).slice(0, 300);
    throw new AdedError("ADED_CORPUS", `${path} answers ${response.statusCode}: ${answer}`, {
      hint: "the server has to be llama-server, or aded in front of one",
    });
  }

  #failure(error: unknown, signal?: AbortSignal): unknown {
    if (signal?.aborted) return signal.reason;
    if (error instanceof AdedError) return error;
    return new AdedError("ADED_ENGINE_UNREACHABLE", `${this.#url}: ${messageOf(error)}`, {
      hint: "start the server (npx aded serve), or name another address with --url",
      cause: error,
    });
  }
}

interface CompletionEvent {
  error?: unknown;
  completion_probabilities?: { id: number; top_logprobs: { id: number; logprob: number }[] }[];
}

function* tokensOf(data: string): Generator<GrownToken> {
  const event = JSON.parse(data) as CompletionEvent;
  if (event.error !== undefined) {
    throw new AdedError(
      "ADED_CORPUS",
      `the server sent an error: ${JSON.stringify(event.error).slice(0, 300)}`,
    );
  }
  for (const { id, top_logprobs } of event.completion_probabilities ?? []) {
    yield {
      id,
      ids: top_logprobs.map((entry) => entry.id),
      probs: top_logprobs.map((entry) => Math.exp(entry.logprob)),
    };
  }
}

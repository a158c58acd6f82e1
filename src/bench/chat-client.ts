/** Sends one chat request and takes its times; speaks to llama-server, to this program's proxy, or to any OpenAI-style server. */
import { Agent, request } from "undici";
import { AdedError, messageOf } from "../errors.ts";
import { SseReader } from "./sse.ts";

export type Arm = "on" | "off";

export interface ChatMessage {
  role: string;
  /** Text, or the parts that the OpenAI API knows. */
  content: unknown;
}

export interface ChatRequest {
  /** What the user says, or else the whole conversation. */
  text: string;
  messages?: readonly ChatMessage[];
  /** Value of the header `x-aded`. */
  arm: Arm;
  maxTokens: number;
  temperature: number;
  seed: number;
  /** Left out of the body when undefined. */
  topP?: number;
  topK?: number;
  model?: string;
  /** @default true */
  stream?: boolean;
}

/** The engine's own account of a request (llama-server's `timings`). */
export interface EngineTimings {
  cache_n: number;
  prompt_n: number;
  prompt_ms: number;
  /** Tokens generated; the first of them comes from the prompt's forward pass. */
  predicted_n: number;
  /** From the first token to the last, ms. */
  predicted_ms: number;
  /** Draft tokens verified and accepted; 0 when the engine names none. */
  draft_n: number;
  draft_n_accepted: number;
}

/** Times are in ms on this side's clock, from the moment the request is sent. */
export interface ChatResult {
  text: string;
  finishReason: string;
  /** `x-aded-arm` of the response; null when it has none. */
  armHeader: string | null;
  /** When the first text arrived; null when none did. */
  ttftMs: number | null;
  /** When the first reasoning text, and the first text of the answer itself, arrived; null when none did. */
  reasoningMs: number | null;
  contentMs: number | null;
  e2eMs: number;
  /** From the first text to the last, ms; null with less than two chunks. */
  streamMs: number | null;
  /** Times between network chunks that bring text, and how many events (tokens, nearly) each of these chunks holds. */
  gapsMs: number[];
  gapEvents: number[];
  /** Events that bring text. */
  events: number;
  /** Null when the server gives none. */
  timings: EngineTimings | null;
}

const TIMEOUT_MS = 600_000;

export class ChatClient {
  readonly url: string;
  readonly #agent: Agent;
  readonly #headers: Record<string, string>;

  /** @param url origin of the server, such as http://127.0.0.1:8080, with or without /v1 */
  constructor(url: string, { apiKey, connections = 1 }: { apiKey?: string; connections?: number } = {}) {
    this.url = url.replace(/\/+$/, "").replace(/\/v1$/, "");
    this.#agent = new Agent({ connections, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
    this.#headers = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  /**
   * GET, JSON. @returns undefined when the server answers anything but JSON with status 200
   * @throws AdedError ADED_ENGINE_UNREACHABLE when it does not answer
   */
  async get(path: string, signal?: AbortSignal): Promise<unknown> {
    try {
      const response = await request(this.url + path, {
        dispatcher: this.#agent,
        headers: this.#headers,
        signal,
      });
      const body = await response.body.text();
      if (response.statusCode !== 200) return undefined;
      return JSON.parse(body) as unknown;
    } catch (error) {
      if (error instanceof SyntaxError) return undefined;
      throw this.#failure(error, signal);
    }
  }

  /**
   * Asks for one answer, streamed unless `stream` is false.
   * @throws AdedError ADED_ENGINE_UNREACHABLE (no connection), ADED_BENCH (an error instead of an answer, or a stream that
   *   ends too early), ADED_INTERRUPTED (the signal)
   */
  async chat(chat: ChatRequest, signal?: AbortSignal): Promise<ChatResult> {
    const streamed = chat.stream ?? true;
    const body = JSON.stringify({
      model: chat.model,
      messages: chat.messages ?? [{ role: "user", content: chat.text }],
      max_tokens: chat.maxTokens,
      temperature: chat.temperature,
      top_p: chat.topP,
      top_k: chat.topK,
      seed: chat.seed,
      stream: streamed,
      cache_prompt: false,
    });
    const headers = { ...this.#headers, "content-type": "application/json", "x-aded": chat.arm };
    const sentAt = performance.now();
    try {
      const response = await request(`${this.url}/v1/chat/completions`, {
        method: "POST",
        dispatcher: this.#agent,
        headers,
        body,
        signal,
        // llama-server closes a connection after a stream without saying so; the next request would run into that.
        reset: true,
      });
      if (response.statusCode !== 200) {
        const answer = (await response.body.text()).slice(0, 300);
        throw new AdedError("ADED_BENCH", `the server answered ${response.statusCode}: ${answer}`);
      }
      const arm = response.headers["x-aded-arm"];
      const armHeader = typeof arm === "string" ? arm : null;
      if (!streamed) {
        const answer = await response.body.text();
        return wholeAnswer(answer, armHeader, performance.now() - sentAt);
      }
      const stream = new ChatStream(sentAt, armHeader);
      for await (const chunk of response.body) stream.push(chunk as Buffer, performance.now());
      return stream.finish();
    } catch (error) {
      throw this.#failure(error, signal);
    }
  }

  #failure(error: unknown, signal?: AbortSignal): AdedError {
    if (signal?.aborted) return new AdedError("ADED_INTERRUPTED", "interrupted", { cause: error });
    if (error instanceof AdedError) return error;
    const code = (error as { code?: unknown } | null)?.code;
    const unreachable =
      typeof code === "string" &&
      /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|CONNECT_TIMEOUT|INVALID_ARG|INVALID_URL|EHOSTUNREACH/.test(code);
    if (!unreachable) {
      return new AdedError("ADED_BENCH", `the request failed: ${messageOf(error)}`, { cause: error });
    }
    return new AdedError(
      "ADED_ENGINE_UNREACHABLE",
      `${this.url} cannot be reached: ${messageOf(error) || code}`,
      {
        hint: "Start the server (npx aded serve), or name another address with --url.",
        cause: error,
      },
    );
  }
}

/** One answer as it comes in. */
class ChatStream {
  readonly #sse = new SseReader();
  readonly #sentAt: number;
  readonly #armHeader: string | null;
  readonly #gapsMs: number[] = [];
  readonly #gapEvents: number[] = [];
  #text = "";
  #events = 0;
  #firstAt: number | null = null;
  #reasoningAt: number | null = null;
  #contentAt: number | null = null;
  #now = 0;
  #lastAt = 0;
  #endedAt = 0;
  #finishReason = "";
  #done = false;
  #timings: EngineTimings | null = null;

  constructor(sentAt: number, armHeader: string | null) {
    this.#sentAt = sentAt;
    this.#armHeader = armHeader;
  }

  push(chunk: Uint8Array, now: number): void {
    this.#endedAt = now;
    this.#now = now;
    let events = 0;
    for (const data of this.#sse.push(chunk)) if (this.#take(data)) events++;
    if (events === 0) return;
    if (this.#firstAt === null) {
      this.#firstAt = now;
    } else {
      this.#gapsMs.push(now - this.#lastAt);
      this.#gapEvents.push(events);
    }
    this.#events += events;
    this.#lastAt = now;
  }

  finish(): ChatResult {
    if (!this.#done || this.#finishReason === "") {
      throw new AdedError("ADED_BENCH", "the stream ended before the answer was complete");
    }
    return {
      text: this.#text,
      finishReason: this.#finishReason,
      armHeader: this.#armHeader,
      ttftMs: this.#firstAt === null ? null : this.#firstAt - this.#sentAt,
      reasoningMs: this.#reasoningAt === null ? null : this.#reasoningAt - this.#sentAt,
      contentMs: this.#contentAt === null ? null : this.#contentAt - this.#sentAt,
      e2eMs: this.#endedAt - this.#sentAt,
      streamMs: this.#firstAt === null || this.#gapsMs.length === 0 ? null : this.#lastAt - this.#firstAt,
      gapsMs: this.#gapsMs,
      gapEvents: this.#gapEvents,
      events: this.#events,
      timings: this.#timings,
    };
  }

  /** @returns whether the event brought text */
  #take(data: string): boolean {
    if (data === "[DONE]") {
      this.#done = true;
      return false;
    }
    const event = parseEvent(data);
    if (event.error !== undefined) {
      throw new AdedError(
        "ADED_BENCH",
        `the server sent an error: ${JSON.stringify(event.error).slice(0, 300)}`,
      );
    }
    if (event.timings !== undefined) this.#timings = readTimings(event.timings);
    const choice = event.choices?.[0];
    if (typeof choice?.finish_reason === "string") this.#finishReason = choice.finish_reason;
    const reasoning = choice?.delta?.reasoning_content ?? "";
    const content = choice?.delta?.content ?? "";
    if (reasoning !== "") this.#reasoningAt ??= this.#now;
    if (content !== "") this.#contentAt ??= this.#now;
    this.#text += reasoning + content;
    return reasoning + content !== "";
  }
}

interface Piece {
  content?: string | null;
  reasoning_content?: string | null;
}

interface ChatEvent {
  error?: unknown;
  timings?: Record<string, unknown>;
  usage?: { completion_tokens?: number };
  choices?: { finish_reason?: string | null; delta?: Piece; message?: Piece }[];
}

/** An answer that came in one piece: its times are the engine's, and the whole request's. */
function wholeAnswer(body: string, armHeader: string | null, e2eMs: number): ChatResult {
  const answer = parseEvent(body);
  const choice = answer.choices?.[0];
  if (typeof choice?.finish_reason !== "string" || choice.message === undefined) {
    throw new AdedError("ADED_BENCH", `the server's answer holds no message: ${body.slice(0, 200)}`);
  }
  const timings = answer.timings === undefined ? null : readTimings(answer.timings);
  return {
    text: (choice.message.reasoning_content ?? "") + (choice.message.content ?? ""),
    finishReason: choice.finish_reason,
    armHeader,
    ttftMs: null,
    reasoningMs: null,
    contentMs: null,
    e2eMs,
    streamMs: null,
    gapsMs: [],
    gapEvents: [],
    events: timings?.predicted_n ?? answer.usage?.completion_tokens ?? 0,
    timings,
  };
}

function parseEvent(data: string): ChatEvent {
  try {
    const value: unknown = JSON.parse(data);
    if (typeof value === "object" && value !== null) return value as ChatEvent;
  } catch {
    // Told below.
  }
  throw new AdedError("ADED_BENCH", `the server sent an event that is no JSON object: ${data.slice(0, 120)}`);
}

function readTimings(timings: Record<string, unknown>): EngineTimings | null {
  const number = (key: string): number => {
    const value = timings[key];
    return typeof value === "number" && Number.isFinite(value) ? value : 0;
  };
  if (typeof timings.predicted_n !== "number" || typeof timings.predicted_ms !== "number") return null;
  return {
    cache_n: number("cache_n"),
    prompt_n: number("prompt_n"),
    prompt_ms: number("prompt_ms"),
    predicted_n: number("predicted_n"),
    predicted_ms: number("predicted_ms"),
    draft_n: number("draft_n"),
    draft_n_accepted: number("draft_n_accepted"),
  };
}

/**
 * A client of a machine that does not exist, with the noise that a real one has: prompts of different length and cost, a speed
 * that wanders slowly, noise of each request, now and then a request that something else disturbed. Seeded; nothing waits.
 */
import type { Chatter } from "../../../../src/bench/ab.ts";
import type { ChatRequest, ChatResult } from "../../../../src/bench/chat-client.ts";
import { Random } from "../../../../src/drafter/random.ts";

export interface NoisyOptions {
  seed: number;
  /** Time per token with drafts on / off. */
  factor: number;
  /** Share of requests that something else slows to 1.2 … 2.2 times their time. @default 0.04 */
  disturbed?: number;
}

const MS_PER_TOKEN = 8;
const NOISE = 0.06;
const WANDER = 0.02;
const DISTURBED = 0.04;

export class NoisyClient implements Chatter {
  readonly #random: Random;
  readonly #factor: number;
  readonly #disturbed: number;
  /** log of the machine's present slowness. */
  #slowness = 0;

  constructor({ seed, factor, disturbed = DISTURBED }: NoisyOptions) {
    this.#random = new Random(seed);
    this.#factor = factor;
    this.#disturbed = disturbed;
  }

  chat(request: ChatRequest): Promise<ChatResult> {
    const prompt = new Random([...request.text].reduce((sum, c) => sum * 31 + c.charCodeAt(0), 7));
    const tokens = 20 + prompt.below(140);
    const cost = 0.9 + 0.3 * prompt.next();
    this.#slowness = 0.95 * this.#slowness + WANDER * this.#normal();
    let ms = (tokens - 1) * MS_PER_TOKEN * cost * Math.exp(this.#slowness + NOISE * this.#normal());
    if (this.#random.next() < this.#disturbed) ms *= 1.2 + this.#random.next();
    if (request.arm === "on") ms *= this.#factor;
    return Promise.resolve({
      text: request.text,
      finishReason: "stop",
      armHeader: request.arm,
      ttftMs: 20,
      reasoningMs: null,
      contentMs: 20,
      e2eMs: ms + 20,
      streamMs: ms,
      gapsMs: [],
      gapEvents: [],
      events: tokens,
      timings: {
        cache_n: 0,
        prompt_n: 10,
        prompt_ms: 20,
        predicted_n: tokens,
        predicted_ms: ms,
        draft_n: 0,
        draft_n_accepted: 0,
      },
    });
  }

  /** Box and Muller. */
  #normal(): number {
    const u = 1 - this.#random.next();
    return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * this.#random.next());
  }
}

/**
 * The A/B measurement: every prompt is answered with drafts and without, close together in time, in an order that chance
 * decides (seeded), with the same sampling seed and without the prompt cache, so that both arms start from the same state.
 */
import { Random } from "../drafter/random.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { Arm, ChatClient, ChatResult } from "./chat-client.ts";
import type { BenchPrompt } from "./prompts.ts";

export interface AbOptions {
  prompts: readonly BenchPrompt[];
  /** @default 160 */
  maxTokens: number;
  /** How often each prompt is measured. @default 1 */
  repeat: number;
  /** Requests of the same arm at once. @default 1 */
  concurrency: number;
  /** For the order of the arms, the bootstrap, and (plus the number of the repeat) the sampling. @default 1 */
  seed: number;
  /** @default 0, greedy */
  temperature: number;
  /** Pairs sent beforehand and not counted. @default 2 */
  warmup: number;
  /** Name of the model; undefined: the server's only one. */
  model?: string;
}

/** One request; times in ms. What a server without `timings` does not tell is null. */
export interface AbSample {
  id: string;
  category: string;
  /** From 0. */
  repeat: number;
  arm: Arm;
  /** True: this arm was the first of its pair. */
  first: boolean;
  /** Why the request failed; null when it did not. */
  error: string | null;
  seed: number;
  arm_header: string | null;
  finish_reason: string | null;
  text: string;
  /** Whose clock `decode_ms` comes from. */
  clock: "engine" | "client";
  prompt_n: number | null;
  prompt_ms: number | null;
  cache_n: number | null;
  /** Tokens generated; counted as stream events when the engine does not tell. */
  predicted_n: number;
  /** First token to last token, ms: the time of predicted_n - 1 tokens. */
  decode_ms: number | null;
  draft_n: number | null;
  draft_n_accepted: number | null;
  ttft_ms: number | null;
  tpot_ms: number | null;
  e2e_ms: number | null;
  /** Times between network chunks with text, and how many events each of them brought. */
  gaps_ms: number[];
  gap_events: number[];
}

export interface AbRun {
  samples: AbSample[];
  /** False: interrupted, or given up because the server failed. */
  complete: boolean;
  /** Why it is not complete. */
  stopped?: AdedError;
}

export interface AbProgress {
  done: number;
  total: number;
}

/** That many blocks in a row without one answer end the run. */
const GIVE_UP_AFTER = 3;

interface Planned {
  prompt: BenchPrompt;
  repeat: number;
}

/**
 * Runs all pairs, in blocks of `concurrency` prompts: a whole block in one arm, then the same block in the other, so that
 * no batch of the engine mixes arms. An interrupted run gives what was measured; a request that fails is a sample that says so.
 * @throws AdedError when already the first request finds no server
 */
export async function runAb(
  client: ChatClient,
  options: AbOptions,
  { signal, onProgress }: { signal?: AbortSignal; onProgress?(progress: AbProgress): void } = {},
): Promise<AbRun> {
  const planned: Planned[] = [];
  for (let repeat = 0; repeat < options.repeat; repeat++) {
    for (const prompt of options.prompts) planned.push({ prompt, repeat });
  }
  const blocks = Math.ceil(planned.length / options.concurrency);
  const firstArms = balancedArms(blocks, options.seed);
  const samples: AbSample[] = [];
  const total = planned.length * 2;
  let failedBlocks = 0;
  try {
    await warmUp(client, options, signal);
    for (const [i, firstArm] of firstArms.entries()) {
      const block = planned.slice(i * options.concurrency, (i + 1) * options.concurrency);
      const arms: Arm[] = firstArm === "on" ? ["on", "off"] : ["off", "on"];
      let answered = 0;
      let lastError = "";
      for (const arm of arms) {
        const first = arm === firstArm;
        const taken = await Promise.all(
          block.map((pair) => sampleOf(client, pair, { arm, first, options, signal })),
        );
        samples.push(...taken);
        for (const sample of taken) {
          if (sample.error === null) answered++;
          else lastError = sample.error;
        }
        onProgress?.({ done: samples.length, total });
      }
      failedBlocks = answered === 0 ? failedBlocks + 1 : 0;
      if (failedBlocks === GIVE_UP_AFTER) {
        throw new AdedError(
          "ADED_BENCH",
          `given up: ${GIVE_UP_AFTER} times in a row every request failed: ${lastError}`,
          {
            hint: "Look at the server's log; the requests may be refused, or the server may be gone.",
          },
        );
      }
    }
    return { samples, complete: true };
  } catch (error) {
    if (!(error instanceof AdedError) || samples.length === 0) throw error;
    return { samples, complete: false, stopped: error };
  }
}

/** Which arm each block begins with: each of them in half of the blocks, so that being second favours neither. */
function balancedArms(blocks: number, seed: number): Arm[] {
  const arms = Array.from({ length: blocks }, (_, i): Arm => (i % 2 === 0 ? "on" : "off"));
  return new Random(seed).shuffle(arms);
}

async function warmUp(client: ChatClient, options: AbOptions, signal?: AbortSignal): Promise<void> {
  for (let i = 0; i < options.warmup; i++) {
    const prompt = options.prompts[i % options.prompts.length];
    for (const arm of ["off", "on"] as const) await client.chat(requestOf(prompt, 0, arm, options), signal);
  }
}

function requestOf(prompt: BenchPrompt, repeat: number, arm: Arm, options: AbOptions) {
  return {
    text: prompt.text,
    arm,
    maxTokens: options.maxTokens,
    temperature: options.temperature,
    seed: options.seed + repeat,
    model: options.model,
  };
}

async function sampleOf(
  client: ChatClient,
  { prompt, repeat }: Planned,
  { arm, first, options, signal }: { arm: Arm; first: boolean; options: AbOptions; signal?: AbortSignal },
): Promise<AbSample> {
  const request = requestOf(prompt, repeat, arm, options);
  const place = { id: prompt.id, category: prompt.category, repeat, arm, first, seed: request.seed };
  try {
    return { ...place, ...measured(await client.chat(request, signal)) };
  } catch (error) {
    if (error instanceof AdedError && error.code === "ADED_INTERRUPTED") throw error;
    return { ...place, ...NOTHING_MEASURED, error: messageOf(error) };
  }
}

type Measured = Omit<AbSample, "id" | "category" | "repeat" | "arm" | "first" | "seed">;

const NOTHING_MEASURED: Measured = {
  error: null,
  arm_header: null,
  finish_reason: null,
  text: "",
  clock: "client",
  prompt_n: null,
  prompt_ms: null,
  cache_n: null,
  predicted_n: 0,
  decode_ms: null,
  draft_n: null,
  draft_n_accepted: null,
  ttft_ms: null,
  tpot_ms: null,
  e2e_ms: null,
  gaps_ms: [],
  gap_events: [],
};

function measured(result: ChatResult): Measured {
  const { timings } = result;
  const tokens = timings?.predicted_n ?? result.events;
  return {
    error: null,
    arm_header: result.armHeader,
    finish_reason: result.finishReason,
    text: result.text,
    clock: timings === null ? "client" : "engine",
    prompt_n: timings?.prompt_n ?? null,
    prompt_ms: timings?.prompt_ms ?? null,
    cache_n: timings?.cache_n ?? null,
    predicted_n: tokens,
    decode_ms: tokens < 2 ? null : (timings?.predicted_ms ?? result.streamMs),
    draft_n: timings?.draft_n ?? null,
    draft_n_accepted: timings?.draft_n_accepted ?? null,
    ttft_ms: rounded(result.ttftMs),
    tpot_ms: result.streamMs === null || tokens < 2 ? null : rounded(result.streamMs / (tokens - 1)),
    e2e_ms: rounded(result.e2eMs),
    gaps_ms: result.gapsMs.map((gap) => rounded(gap) as number),
    gap_events: result.gapEvents,
  };
}

/** To 1 µs. */
function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 1000) / 1000;
}

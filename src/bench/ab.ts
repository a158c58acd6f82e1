/**
 * The A/B measurement: every prompt is answered in both arms, close together in time, in an order that chance decides
 * (seeded), with the same sampling seed and without the prompt cache, so that both arms start from the same state.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Random } from "../drafter/random.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { AbSample } from "./ab-sample.ts";
import { measured, NOTHING_MEASURED } from "./ab-sample.ts";
import type { Arm, ChatClient } from "./chat-client.ts";
import type { BenchPrompt } from "./prompts.ts";

/** Who asks the server. */
export type Chatter = Pick<ChatClient, "chat">;

/** What is particular to one arm: "on" is the one that is tested, "off" the one that it is held against. */
export interface ArmSpec {
  /** Value of the header `x-aded`. @default the arm's own name */
  drafts?: Arm;
  /** @default AbOptions.model */
  model?: string;
}

export interface AbOptions {
  prompts: readonly BenchPrompt[];
  /** @default 160 */
  maxTokens: number;
  /** How often each prompt is measured. @default 1 */
  repeat: number;
  /** Requests of the same arm at once. @default 1 */
  concurrency: number;
  /** For the order of the arms, the arrivals, the bootstrap, and (plus the number of the repeat) the sampling. @default 1 */
  seed: number;
  /** @default 0, greedy */
  temperature: number;
  topP?: number;
  topK?: number;
  /** Pairs sent beforehand and not counted. @default 2 */
  warmup: number;
  /** Name of the model; undefined: the server's only one. */
  model?: string;
  /** @default true */
  stream?: boolean;
  /** Whose clock decode times are taken from: the engine's `timings`, or this side's (first text to last). @default "engine" */
  clock?: "engine" | "client";
  /** Requests per second on average, arriving as a Poisson process, however many still run; undefined: `concurrency` at once. */
  rate?: number;
  /** Requests of one arm in a row. @default with `rate` 16; one by one 1; several at once: four times as many */
  block?: number;
  arms?: Record<Arm, ArmSpec>;
}

export interface AbRun {
  samples: AbSample[];
  /** False: interrupted, or given up because the server failed. */
  complete: boolean;
  /** Why it is not complete. */
  stopped?: AdedError;
  /** True: what had been measured was enough. */
  early?: boolean;
  /** Time during which each arm had requests running, ms. */
  busy_ms?: Record<Arm, number>;
}

export interface AbProgress {
  done: number;
  total: number;
}

export interface AbHooks {
  signal?: AbortSignal;
  onProgress?(progress: AbProgress): void;
  /** An earlier, incomplete run with the same options: its finished blocks are not measured again. */
  resume?: Pick<AbRun, "samples" | "busy_ms">;
  /** After every block, with all samples so far. */
  onBlock?(run: AbRun): Promise<void> | void;
  /** Numbers of pairs after which `enough` is asked, ascending. */
  looks?: readonly number[];
  enough?(samples: readonly AbSample[]): boolean;
}

/** That many blocks in a row without one answer end the run. */
const GIVE_UP_AFTER = 3;
const DEFAULT_BLOCK = 16;
/**
 * Rounds of a block in which several requests run at once, one following as soon as another ends. With a single round the slowest
 * request would decide: texts of unequal speed leave slots idle, which no server under load does.
 */
const ROUNDS = 4;

interface Planned {
  prompt: BenchPrompt;
  repeat: number;
}

/** Requests of one arm in a row. */
export function blockSize({
  rate,
  block,
  concurrency,
}: Pick<AbOptions, "rate" | "block" | "concurrency">): number {
  if (block !== undefined) return block;
  if (rate !== undefined) return DEFAULT_BLOCK;
  return concurrency === 1 ? 1 : ROUNDS * concurrency;
}

/** Pairs that a run consists of, unless it stops early. */
export function plannedPairs(options: AbOptions): number {
  return options.prompts.length * options.repeat;
}

/**
 * Runs all pairs, in blocks: a whole block in one arm, then the same block in the other, so that no batch of the engine
 * mixes arms. An interrupted run gives what was measured; a request that fails is a sample that says so.
 * @param clients one for both arms, or one each
 * @throws AdedError when already the first request finds no server
 */
export async function runAb(
  clients: Chatter | Record<Arm, Chatter>,
  options: AbOptions,
  hooks: AbHooks = {},
): Promise<AbRun> {
  const { signal, onProgress, resume, onBlock, looks = [], enough } = hooks;
  const { rate, seed } = options;
  const planned: Planned[] = [];
  for (let repeat = 0; repeat < options.repeat; repeat++) {
    for (const prompt of options.prompts) planned.push({ prompt, repeat });
  }
  const size = blockSize(options);
  const firstArms = balancedArms(Math.ceil(planned.length / size), options.seed);
  const total = planned.length * 2;
  const busy: Record<Arm, number> = { on: 0, off: 0, ...resume?.busy_ms };
  const samples: AbSample[] = [];
  const earlier = new Map((resume?.samples ?? []).map((sample) => [keyOf(sample), sample]));
  const startedAt = performance.now() - lastMoment(resume?.samples ?? []);
  const sender = new Sender("chat" in clients ? { on: clients, off: clients } : clients, {
    options,
    signal,
    startedAt,
  });
  let failedBlocks = 0;
  let pairs = 0;
  let look = 0;
  try {
    await warmUp(sender, options);
    for (const [i, firstArm] of firstArms.entries()) {
      const block = planned.slice(i * size, (i + 1) * size);
      const kept = block.flatMap(({ prompt, repeat }) =>
        (["on", "off"] as const).map((arm) => earlier.get(keyOf({ id: prompt.id, repeat, arm }))),
      );
      pairs += block.length;
      if (kept.every((sample) => sample !== undefined && sample.error === null)) {
        samples.push(...(kept as AbSample[]));
        onProgress?.({ done: samples.length, total });
      } else {
        const arrivals = rate === undefined ? undefined : arrivalsOf(block.length, rate, seed * 7919 + i);
        const arms: Arm[] = firstArm === "on" ? ["on", "off"] : ["off", "on"];
        let answered = 0;
        let lastError = "";
        for (const arm of arms) {
          const from = performance.now();
          const taken = await sender.sendAll(block, { arm, first: arm === firstArm, arrivals });
          busy[arm] += performance.now() - from;
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
            { hint: "Look at the server's log; the requests may be refused, or the server may be gone." },
          );
        }
        await onBlock?.({ samples, complete: false, busy_ms: busy });
      }
      const due = look < looks.length && pairs >= looks[look];
      while (look < looks.length && pairs >= looks[look]) look++;
      if (due && pairs < planned.length && enough?.(samples) === true) {
        return { samples, complete: true, early: true, busy_ms: busy };
      }
    }
    return { samples, complete: true, busy_ms: busy };
  } catch (error) {
    if (!(error instanceof AdedError) || samples.length === 0) throw error;
    return { samples, complete: false, stopped: error, busy_ms: busy };
  }
}

function keyOf({ id, repeat, arm }: Pick<AbSample, "id" | "repeat" | "arm">): string {
  return `${arm} ${repeat} ${id}`;
}

/** When the last of these requests ended, ms since the run began. */
function lastMoment(samples: readonly AbSample[]): number {
  return samples.reduce((last, { at_ms, e2e_ms }) => Math.max(last, (at_ms ?? 0) + (e2e_ms ?? 0)), 0);
}

/** Which arm each block begins with: each of them in half of the blocks, so that being second favours neither. */
function balancedArms(blocks: number, seed: number): Arm[] {
  const arms = Array.from({ length: blocks }, (_, i): Arm => (i % 2 === 0 ? "on" : "off"));
  return new Random(seed).shuffle(arms);
}

/** When each request of a block is sent, ms after the first; both arms take the same. Times between arrivals of a Poisson process are exponentially distributed. */
function arrivalsOf(count: number, rate: number, seed: number): number[] {
  const random = new Random(seed);
  const atMs: number[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    atMs.push(at);
    at += (-Math.log(1 - random.next()) / rate) * 1000;
  }
  return atMs;
}

async function warmUp(sender: Sender, options: AbOptions): Promise<void> {
  for (let i = 0; i < options.warmup; i++) {
    const prompt = options.prompts[i % options.prompts.length];
    for (const arm of ["off", "on"] as const) await sender.warm(prompt, arm);
  }
}

/** Sends requests and turns what comes back into samples. */
class Sender {
  readonly #clients: Record<Arm, Chatter>;
  readonly #options: AbOptions;
  readonly #signal: AbortSignal | undefined;
  readonly #startedAt: number;

  constructor(
    clients: Record<Arm, Chatter>,
    run: { options: AbOptions; signal?: AbortSignal; startedAt: number },
  ) {
    this.#clients = clients;
    this.#options = run.options;
    this.#signal = run.signal;
    this.#startedAt = run.startedAt;
  }

  async warm(prompt: BenchPrompt, arm: Arm): Promise<void> {
    await this.#clients[arm].chat(this.#request(prompt, 0, arm), this.#signal);
  }

  /** @param way when each is sent; without `arrivals`, each as soon as fewer than `concurrency` run */
  async sendAll(
    block: readonly Planned[],
    way: { arm: Arm; first: boolean; arrivals?: readonly number[] },
  ): Promise<AbSample[]> {
    const { arm, first, arrivals } = way;
    if (arrivals !== undefined) {
      return Promise.all(
        block.map(async (pair, i) => {
          if (arrivals[i] > 0) await this.#pause(arrivals[i]);
          return this.#sample(pair, arm, first);
        }),
      );
    }
    const samples = new Array<AbSample>(block.length);
    let next = 0;
    const sendOn = async (): Promise<void> => {
      while (next < block.length) {
        const i = next++;
        samples[i] = await this.#sample(block[i], arm, first);
      }
    };
    await Promise.all(Array.from({ length: this.#options.concurrency }, sendOn));
    return samples;
  }

  async #pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#signal }).catch((error: unknown) => {
      throw new AdedError("ADED_INTERRUPTED", "interrupted", { cause: error });
    });
  }

  #request(prompt: BenchPrompt, repeat: number, arm: Arm) {
    const { maxTokens, temperature, topP, topK, seed, model, stream, arms } = this.#options;
    return {
      text: prompt.text,
      messages: prompt.messages,
      arm: arms?.[arm].drafts ?? arm,
      maxTokens,
      temperature,
      topP,
      topK,
      seed: seed + repeat,
      model: arms?.[arm].model ?? model,
      stream,
    };
  }

  async #sample({ prompt, repeat }: Planned, arm: Arm, first: boolean): Promise<AbSample> {
    const request = this.#request(prompt, repeat, arm);
    const place = {
      id: prompt.id,
      category: prompt.category,
      ...(prompt.group === undefined ? {} : { group: prompt.group }),
      repeat,
      arm,
      first,
      seed: request.seed,
      at_ms: Math.round((performance.now() - this.#startedAt) * 1000) / 1000,
    };
    try {
      const result = await this.#clients[arm].chat(request, this.#signal);
      return { ...place, ...measured(result, this.#options.clock) };
    } catch (error) {
      if (error instanceof AdedError && error.code === "ADED_INTERRUPTED") throw error;
      return { ...place, ...NOTHING_MEASURED, error: messageOf(error) };
    }
  }
}

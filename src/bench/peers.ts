/**
 * The same prompts to several servers, one after the other: the stock engine plain and with each of its speculators that need no draft
 * model, and this project. Only one of them computes at a time, in an order that chance decides anew for every prompt.
 */
import { Random } from "../drafter/random.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { ChatClient } from "./chat-client.ts";
import type { BenchPrompt } from "./prompts.ts";
import { bootstrapRatio, type Interval, median, type RatioUnit, ratioOfSums } from "./statistics.ts";

export interface PeerArm {
  /** As in tables. */
  name: string;
  /** What the proxy calls it. */
  model: string;
  /** Arguments that make it what it is. */
  args: readonly string[];
}

export interface PeersOptions {
  /** The first is what the others are measured against. */
  arms: readonly PeerArm[];
  prompts: readonly BenchPrompt[];
  maxTokens: number;
  temperature: number;
  seed: number;
  /** Prompts beforehand, sent to every arm, that do not count. */
  warmup: number;
}

export interface PeerSample {
  id: string;
  category: string;
  arm: string;
  text: string;
  /** Tokens after the first, and the time from the first to the last, ms. */
  tokens: number;
  decodeMs: number;
  /** Draft tokens verified and accepted. */
  drafted: number;
  accepted: number;
}

export interface PeersRun {
  samples: PeerSample[];
  /** Why it ended before all prompts were answered. */
  stopped?: unknown;
}

/** @param onProgress told of every answer */
export async function runPeers(
  client: Pick<ChatClient, "chat">,
  options: PeersOptions,
  {
    signal,
    onProgress,
  }: { signal?: AbortSignal; onProgress?: (done: number, total: number, note: string) => void } = {},
): Promise<PeersRun> {
  const { arms, prompts, maxTokens, temperature, seed, warmup } = options;
  const random = new Random(seed);
  const samples: PeerSample[] = [];
  const total = arms.length * prompts.length;
  const ask = async (arm: PeerArm, prompt: BenchPrompt): Promise<PeerSample> => {
    const { text, timings } = await client.chat(
      { text: prompt.text, arm: "on", maxTokens, temperature, seed, model: arm.model },
      signal,
    );
    if (timings === null) {
      throw new AdedError("ADED_BENCH", `${arm.name} gives no timings`, {
        hint: "Only llama-server's answers can be compared here.",
      });
    }
    return {
      id: prompt.id,
      category: prompt.category,
      arm: arm.name,
      text,
      tokens: Math.max(0, timings.predicted_n - 1),
      decodeMs: timings.predicted_ms,
      drafted: timings.draft_n,
      accepted: timings.draft_n_accepted,
    };
  };
  try {
    for (const prompt of prompts.slice(0, warmup)) for (const arm of arms) await ask(arm, prompt);
    for (const prompt of prompts) {
      for (const arm of random.shuffle([...arms])) {
        onProgress?.(samples.length, total, arm.name);
        samples.push(await ask(arm, prompt));
      }
    }
  } catch (stopped) {
    return { samples, stopped };
  }
  return { samples };
}

export interface PeerResult {
  /** Decode time of the plain stock engine over that of this arm, and its 95 % interval over prompts. */
  ratio: number | null;
  ci: [number, number] | null;
  tokens_per_step: number | null;
  /** Accepted share of the drafted tokens; null: nothing was drafted. */
  acceptance: number | null;
  /** Prompts answered by both, and how many of these with the very same text. */
  n: number;
  same_text: number;
  /** Median ms per token. */
  ms_per_token: number | null;
  args: string[];
}

export interface PeersReport {
  /** The arm that the ratios are to. */
  plain: string;
  arms: Record<string, PeerResult>;
  /** This project's decode time against the fastest other arm's, and its interval. */
  aded_to_best: { arm: string; ratio: number | null; ci: [number, number] | null } | null;
  categories: Record<string, Record<string, number | null>>;
  n: number;
  complete: boolean;
  error: string | null;
}

const RESAMPLES = 5000;

/** @param own name of this project's arm */
export function reportPeers(run: PeersRun, { arms, seed }: PeersOptions, own: string): PeersReport {
  const byArm = new Map(arms.map(({ name }) => [name, new Map<string, PeerSample>()]));
  for (const sample of run.samples) byArm.get(sample.arm)?.set(sample.id, sample);
  const samplesOf = (name: string): Map<string, PeerSample> => byArm.get(name) ?? new Map();
  const plain = arms[0].name;
  const categories = [...new Set(run.samples.map(({ category }) => category))].sort();
  const results: Record<string, PeerResult> = {};
  for (const { name, args } of arms) {
    const pairs = pairsOf(samplesOf(plain), samplesOf(name));
    results[name] = { ...resultOf(pairs, seed), args: [...args] };
  }
  const others = arms.filter(({ name }) => name !== own && name !== plain);
  const best = others.reduce<string | null>(
    (found, { name }) =>
      found === null || (results[name].ratio ?? 0) > (results[found].ratio ?? 0) ? name : found,
    null,
  );
  const units = best === null ? [] : unitsOf(pairsOf(samplesOf(best), samplesOf(own)));
  return {
    plain,
    arms: results,
    aded_to_best:
      best === null
        ? null
        : {
            arm: best,
            ratio: ratioOfSums(units),
            ci: pair(bootstrapRatio(units, { seed, resamples: RESAMPLES })),
          },
    categories: Object.fromEntries(
      categories.map((category) => [
        category,
        Object.fromEntries(
          arms.map(({ name }) => {
            const pairs = pairsOf(samplesOf(plain), samplesOf(name));
            return [name, ratioOfSums(unitsOf(pairs.filter(([a]) => a.category === category)))];
          }),
        ),
      ]),
    ),
    n: Math.min(...arms.map(({ name }) => samplesOf(name).size)),
    complete: run.stopped === undefined,
    error: run.stopped === undefined ? null : messageOf(run.stopped),
  };
}

type Pair = readonly [PeerSample, PeerSample];

/** Answers to the same prompt. */
function pairsOf(of: ReadonlyMap<string, PeerSample>, to: ReadonlyMap<string, PeerSample>): Pair[] {
  return [...of].flatMap(([id, sample]) => {
    const other = to.get(id);
    return other === undefined || sample.tokens === 0 || other.tokens === 0 ? [] : [[sample, other] as const];
  });
}

/** Where texts differ in length, both times are scaled to the mean number of tokens. */
function unitsOf(pairs: readonly Pair[]): RatioUnit[] {
  return pairs.map(([a, b]) => {
    const tokens = (a.tokens + b.tokens) / 2;
    return { numerator: (a.decodeMs / a.tokens) * tokens, denominator: (b.decodeMs / b.tokens) * tokens };
  });
}

function resultOf(pairs: readonly Pair[], seed: number): Omit<PeerResult, "args"> {
  const units = unitsOf(pairs);
  const sum = (of: (sample: PeerSample) => number): number => pairs.reduce((all, [, b]) => all + of(b), 0);
  const tokens = sum((sample) => sample.tokens);
  const accepted = sum(({ accepted: n }) => n);
  const drafted = sum(({ drafted: n }) => n);
  return {
    ratio: ratioOfSums(units),
    ci: pair(bootstrapRatio(units, { seed, resamples: RESAMPLES })),
    tokens_per_step: tokens > accepted ? tokens / (tokens - accepted) : null,
    acceptance: drafted > 0 ? accepted / drafted : null,
    n: pairs.length,
    same_text: pairs.filter(([a, b]) => a.text === b.text).length,
    ms_per_token: median(pairs.map(([, b]) => b.decodeMs / b.tokens)),
  };
}

function pair(interval: Interval | null): [number, number] | null {
  return interval === null ? null : [interval.low, interval.high];
}

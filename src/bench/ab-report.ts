/** What an A/B run says: ratios with intervals, both arms' latencies, whether the texts are the same. Null: nothing measured. */
import type { AbOptions, AbRun, AbSample } from "./ab.ts";
import type { Arm } from "./chat-client.ts";
import type { BenchEnvironment } from "./environment.ts";
import { bootstrapRatio, type Quantiles, quantiles, type RatioUnit, ratioOfSums } from "./statistics.ts";

export interface RatioReport {
  /** Time without drafts / time with drafts; above 1: drafts are faster. */
  ratio: number | null;
  /** 95 % bootstrap interval over prompts. */
  ci: [low: number, high: number] | null;
  /** Pairs that count. */
  n: number;
}

export interface ArmReport {
  /** Requests answered, and failed. */
  requests: number;
  failed: number;
  /** Tokens generated. */
  tokens: number;
  /** Tokens per second of decoding, the first token of each answer left out. */
  tok_s: number | null;
  decode_ms: number;
  ttft_ms: Quantiles | null;
  /** Between tokens: the time between two network chunks, shared by the tokens that the second one brings. */
  itl_ms: Quantiles | null;
  /** Between network chunks. */
  itl_chunk_ms: Quantiles | null;
  /** Per request: (last text - first text) / (tokens - 1). */
  tpot_ms: Quantiles | null;
  e2e_ms: Quantiles | null;
  draft_n: number | null;
  draft_n_accepted: number | null;
  /** Accepted / drafted. */
  acceptance: number | null;
  tokens_per_step: number | null;
  /** How often each value of x-aded-arm came back; "none": no such header. */
  arm_header: Record<string, number>;
}

export interface TextDifference {
  id: string;
  category: string;
  repeat: number;
  /** First character that differs, counted in UTF-16 units. */
  index: number;
  /** What follows from there. */
  on: string;
  off: string;
}

export interface AbReport {
  overall: RatioReport & { e2e: RatioReport };
  categories: Record<string, RatioReport>;
  /** Pairs whose texts are the same, of `n`. */
  same_text: number;
  /** Pairs of which both requests were answered. */
  n: number;
  /** Of the on-arm. */
  tokens_per_step: number | null;
  complete: boolean;
  /** True: every answer of the on-arm said x-aded-arm: on. */
  arm_verified: boolean;
  notes: string[];
  arms: Record<Arm, ArmReport>;
  options: Omit<AbOptions, "prompts"> & { prompts: number };
  environment: BenchEnvironment;
  differences: TextDifference[];
  samples: AbSample[];
}

interface Pair {
  on: AbSample;
  off: AbSample;
}

const EXCERPT = 60;

export function reportAb(run: AbRun, options: AbOptions, environment: BenchEnvironment): AbReport {
  const pairs = pairsOf(run.samples);
  const differences = pairs.flatMap(differenceOf);
  const arms = { on: armReport(run.samples, "on"), off: armReport(run.samples, "off") };
  const seed = options.seed;
  const categories: Record<string, RatioReport> = {};
  for (const category of new Set(pairs.map((pair) => pair.on.category))) {
    const of = pairs.filter((pair) => pair.on.category === category);
    categories[category] = ratioReport(of, decodeUnit, seed);
  }
  const verified = arms.on.requests > 0 && arms.on.arm_header.on === arms.on.requests;
  return {
    overall: { ...ratioReport(pairs, decodeUnit, seed), e2e: ratioReport(pairs, e2eUnit, seed) },
    categories,
    same_text: pairs.length - differences.length,
    n: pairs.length,
    tokens_per_step: arms.on.tokens_per_step,
    complete: run.complete,
    arm_verified: verified,
    notes: notesOf(run, arms, verified),
    arms,
    options: { ...options, prompts: options.prompts.length },
    environment,
    differences,
    samples: run.samples,
  };
}

function pairsOf(samples: readonly AbSample[]): Pair[] {
  const found = new Map<string, Partial<Pair>>();
  for (const sample of samples) {
    if (sample.error !== null) continue;
    const key = `${sample.repeat} ${sample.id}`;
    found.set(key, { ...found.get(key), [sample.arm]: sample });
  }
  return [...found.values()].filter((pair): pair is Pair => pair.on !== undefined && pair.off !== undefined);
}

/**
 * Decode times of a pair. Where the texts differ in length, both times are scaled to the mean number of tokens; with equal
 * texts this is the plain time.
 */
function decodeUnit({ on, off }: Pair): RatioUnit | undefined {
  if (on.decode_ms === null || off.decode_ms === null || on.predicted_n < 2 || off.predicted_n < 2) {
    return undefined;
  }
  const tokensOn = on.predicted_n - 1;
  const tokensOff = off.predicted_n - 1;
  const tokens = (tokensOn + tokensOff) / 2;
  return { numerator: (off.decode_ms / tokensOff) * tokens, denominator: (on.decode_ms / tokensOn) * tokens };
}

/** Whole requests as the client sees them, as they are. */
function e2eUnit({ on, off }: Pair): RatioUnit | undefined {
  if (on.e2e_ms === null || off.e2e_ms === null) return undefined;
  return { numerator: off.e2e_ms, denominator: on.e2e_ms };
}

/** Repeats of a prompt are one unit of the bootstrap: they are not independent. */
function ratioReport(
  pairs: readonly Pair[],
  unitOf: (pair: Pair) => RatioUnit | undefined,
  seed: number,
): RatioReport {
  const byPrompt = new Map<string, RatioUnit>();
  let n = 0;
  for (const pair of pairs) {
    const unit = unitOf(pair);
    if (unit === undefined) continue;
    n++;
    const sum = byPrompt.get(pair.on.id) ?? { numerator: 0, denominator: 0 };
    byPrompt.set(pair.on.id, {
      numerator: sum.numerator + unit.numerator,
      denominator: sum.denominator + unit.denominator,
    });
  }
  const units = [...byPrompt.values()];
  const interval = bootstrapRatio(units, { seed });
  return { ratio: ratioOfSums(units), ci: interval === null ? null : [interval.low, interval.high], n };
}

function armReport(samples: readonly AbSample[], arm: Arm): ArmReport {
  const all = samples.filter((sample) => sample.arm === arm);
  const answered = all.filter((sample) => sample.error === null);
  const timed = answered.filter((sample) => sample.decode_ms !== null);
  const sum = (of: readonly AbSample[], value: (sample: AbSample) => number | null): number =>
    of.reduce((total, sample) => total + (value(sample) ?? 0), 0);
  const decodeMs = sum(timed, (sample) => sample.decode_ms);
  const decoded = sum(timed, (sample) => sample.predicted_n - 1);
  const told = timed.filter((sample) => sample.draft_n_accepted !== null);
  const drafted = told.length === 0 ? null : sum(told, (sample) => sample.draft_n);
  const accepted = told.length === 0 ? null : sum(told, (sample) => sample.draft_n_accepted);
  // The first token comes with the prompt; every other step brings one token of its own and the accepted drafts.
  const toldTokens = sum(told, (sample) => sample.predicted_n - 1);
  const steps = toldTokens - (accepted ?? 0);
  const times = (value: (sample: AbSample) => number | null): Quantiles | null =>
    quantiles(answered.map(value).filter((ms): ms is number => ms !== null));
  const headers: Record<string, number> = {};
  for (const { arm_header: header } of answered)
    headers[header ?? "none"] = (headers[header ?? "none"] ?? 0) + 1;
  return {
    requests: answered.length,
    failed: all.length - answered.length,
    tokens: sum(answered, (sample) => sample.predicted_n),
    tok_s: decodeMs > 0 ? (decoded / decodeMs) * 1000 : null,
    decode_ms: decodeMs,
    ttft_ms: times((sample) => sample.ttft_ms),
    itl_ms: quantiles(answered.flatMap(tokenGaps)),
    itl_chunk_ms: quantiles(answered.flatMap((sample) => sample.gaps_ms)),
    tpot_ms: times((sample) => sample.tpot_ms),
    e2e_ms: times((sample) => sample.e2e_ms),
    draft_n: drafted,
    draft_n_accepted: accepted,
    acceptance: drafted !== null && accepted !== null && drafted > 0 ? accepted / drafted : null,
    tokens_per_step: told.length > 0 && steps > 0 ? toldTokens / steps : null,
    arm_header: headers,
  };
}

function tokenGaps(sample: AbSample): number[] {
  return sample.gaps_ms.flatMap((gap, i) => {
    const events = sample.gap_events[i];
    return new Array<number>(events).fill(gap / events);
  });
}

function differenceOf({ on, off }: Pair): TextDifference[] {
  if (on.text === off.text && on.finish_reason === off.finish_reason) return [];
  let index = 0;
  while (index < on.text.length && on.text[index] === off.text[index]) index++;
  return [
    {
      id: on.id,
      category: on.category,
      repeat: on.repeat,
      index,
      on: on.text.slice(index, index + EXCERPT),
      off: off.text.slice(index, index + EXCERPT),
    },
  ];
}

function notesOf(run: AbRun, arms: Record<Arm, ArmReport>, verified: boolean): string[] {
  const notes: string[] = [];
  if (run.stopped !== undefined) notes.push(`Not complete: ${run.stopped.message}.`);
  const { on, off } = arms;
  if (on.requests > 0 && !verified) {
    const seen = Object.entries(on.arm_header).map(([value, count]) => `${value}: ${count}`);
    notes.push(
      `The on-arm was not on for every request (x-aded-arm: ${seen.join(", ")}): the ratio does not measure drafts. ` +
        "Is this a stock server, or a proxy with drafts switched off?",
    );
  } else if (on.requests > 0 && on.draft_n === 0) {
    notes.push(
      "The on-arm drafted nothing: the drafter judged that drafts do not pay here, or its link is down.",
    );
  }
  const offDrafted = (off.draft_n ?? 0) > 0 || (off.arm_header.on ?? 0) > 0;
  if (offDrafted) notes.push("The off-arm was drafted for: the ratio is too low.");
  const answered = run.samples.filter((sample) => sample.error === null);
  const cached = answered.filter((sample) => (sample.cache_n ?? 0) > 0).length;
  if (cached > 0) notes.push(`Requests that used the prompt cache although they asked not to: ${cached}.`);
  const failed = run.samples.filter((sample) => sample.error !== null);
  if (failed.length > 0)
    notes.push(`Failed requests, which do not count: ${failed.length}; the first: ${failed[0].error}.`);
  if (answered.some((sample) => sample.clock === "client")) {
    notes.push(
      "The server gives no timings: decode times are the client's (first text to last), tokens are stream events.",
    );
  }
  return notes;
}

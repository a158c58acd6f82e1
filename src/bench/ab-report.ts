/** What an A/B run says: ratios with intervals, both arms' latencies, whether the texts are the same. Null: nothing measured. */
import type { AbOptions, AbRun } from "./ab.ts";
import type { AbSample } from "./ab-sample.ts";
import type { Arm } from "./chat-client.ts";
import type { DraftFigures } from "./draft-figures.ts";
import type { BenchEnvironment } from "./environment.ts";
import { type GoodputReport, goodput, type Limits } from "./goodput.ts";
import { judgeNoise, type NoiseReport } from "./noise.ts";
import type { RatioReport } from "./ratio.ts";
import type { SequentialPlan } from "./sequential.ts";
import {
  type BootstrapOptions,
  bootstrapMedian,
  bootstrapRatio,
  type Quantiles,
  quantiles,
  type RatioUnit,
  ratioOfSums,
} from "./statistics.ts";

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
  /** Until the first reasoning text, and until the first text of the answer itself. */
  ttfr_ms: Quantiles | null;
  ttfa_ms: Quantiles | null;
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
  /** Over the time in which this arm had requests running. */
  throughput: { requests_per_s: number | null; tokens_per_s: number | null };
  /** Requests that kept the limits; null without limits. */
  goodput: GoodputReport | null;
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
  overall: RatioReport & {
    /** Of whole requests. */
    e2e: RatioReport;
    /** Of the times to the first token. */
    ttft: RatioReport;
    /** The median of the pairs' ratios: what few disturbed requests hardly move. Each pair counts the same, however long. */
    median: RatioReport;
  };
  categories: Record<string, RatioReport>;
  /** Level of the intervals: 0.95, or more when the run could stop early. */
  level: number;
  /** Pairs whose texts are the same, of `n`. */
  same_text: number;
  /** … as a share; null without pairs. */
  same_text_share: number | null;
  /** Pairs of which both requests were answered. */
  n: number;
  /** Of the on-arm. */
  tokens_per_step: number | null;
  complete: boolean;
  /** True: every answer of the on-arm said x-aded-arm: on. */
  arm_verified: boolean;
  /** When it could have stopped, and whether it did; null: it could not. */
  sequential: (SequentialPlan & { stopped_early: boolean }) | null;
  noise: NoiseReport;
  /** What the server's drafter counted during the run; null: it tells nothing. */
  drafts: DraftFigures | null;
  notes: string[];
  arms: Record<Arm, ArmReport>;
  /** Time during which each arm had requests running, ms. */
  busy_ms: Record<Arm, number> | null;
  options: Omit<AbOptions, "prompts"> & { prompts: number; prompts_hash?: string };
  environment: BenchEnvironment;
  differences: TextDifference[];
  samples: AbSample[];
}

export interface ReportExtras {
  /** What goodput asks of a request. */
  limits?: Limits;
  sequential?: SequentialPlan;
  drafts?: DraftFigures | null;
  /** The smallest relative difference that matters, for the verdict on noise. @default 0.05 */
  resolve?: number;
  promptsHash?: string;
}

interface Pair {
  on: AbSample;
  off: AbSample;
}

const EXCERPT = 60;

export function reportAb(
  run: AbRun,
  options: AbOptions,
  environment: BenchEnvironment,
  { limits = {}, sequential, drafts = null, resolve = 0.05, promptsHash }: ReportExtras = {},
): AbReport {
  const pairs = pairsOf(run.samples);
  const differences = pairs.flatMap(differenceOf);
  const arm = (name: Arm): ArmReport => armReport(run.samples, name, { limits, busyMs: run.busy_ms?.[name] });
  const arms = { on: arm("on"), off: arm("off") };
  const level = sequential?.level ?? 0.95;
  const interval = { seed: options.seed, level };
  const categories: Record<string, RatioReport> = {};
  for (const category of new Set(pairs.map((pair) => pair.on.category))) {
    const of = pairs.filter((pair) => pair.on.category === category);
    categories[category] = ratioReport(of, decodeUnit, interval);
  }
  const overall = ratioReport(pairs, decodeUnit, interval);
  const wanted = (name: Arm): Arm => options.arms?.[name].drafts ?? name;
  const verified = arms.on.requests > 0 && arms.on.arm_header[wanted("on")] === arms.on.requests;
  return {
    overall: {
      ...overall,
      e2e: ratioReport(pairs, e2eUnit, interval),
      ttft: ratioReport(pairs, ttftUnit, interval),
      median: medianReport(pairs, interval),
    },
    categories,
    level,
    same_text: pairs.length - differences.length,
    same_text_share: pairs.length === 0 ? null : 1 - differences.length / pairs.length,
    n: pairs.length,
    tokens_per_step: arms.on.tokens_per_step,
    complete: run.complete,
    arm_verified: verified,
    sequential: sequential === undefined ? null : { ...sequential, stopped_early: run.early === true },
    noise: judgeNoise({ ratio: overall, units: unitsOf(pairs, decodeUnit), pairs, resolve }),
    drafts,
    notes: notesOf(run, arms, { verified, wanted }),
    arms,
    busy_ms: run.busy_ms ?? null,
    options: { ...options, prompts: options.prompts.length, prompts_hash: promptsHash },
    environment,
    differences,
    samples: run.samples,
  };
}

/** The ratio of decode times with its interval, for a run that is still going on. */
export function decodeRatio(samples: readonly AbSample[], options: BootstrapOptions): RatioReport {
  return ratioReport(pairsOf(samples), decodeUnit, options);
}

/** The median of the pairs' ratios of decode times. */
export function medianRatio(samples: readonly AbSample[], options: BootstrapOptions): RatioReport {
  return medianReport(pairsOf(samples), options);
}

/** Decode times of every prompt (or group of prompts) that both arms answered, summed over repeats. */
export function decodeUnits(samples: readonly AbSample[]): Map<string, RatioUnit> {
  return unitsOf(pairsOf(samples), decodeUnit);
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

/** Times to the first token as the client sees them, as they are. */
function ttftUnit({ on, off }: Pair): RatioUnit | undefined {
  if (on.ttft_ms === null || off.ttft_ms === null) return undefined;
  return { numerator: off.ttft_ms, denominator: on.ttft_ms };
}

/** Repeats of a prompt, and the turns of a conversation, are one unit of the bootstrap: they are not independent. */
function unitsOf(
  pairs: readonly Pair[],
  unitOf: (pair: Pair) => RatioUnit | undefined,
): Map<string, RatioUnit> {
  const units = new Map<string, RatioUnit>();
  for (const pair of pairs) {
    const unit = unitOf(pair);
    if (unit === undefined) continue;
    const key = pair.on.group ?? pair.on.id;
    const sum = units.get(key) ?? { numerator: 0, denominator: 0 };
    units.set(key, {
      numerator: sum.numerator + unit.numerator,
      denominator: sum.denominator + unit.denominator,
    });
  }
  return units;
}

function ratioReport(
  pairs: readonly Pair[],
  unitOf: (pair: Pair) => RatioUnit | undefined,
  options: BootstrapOptions,
): RatioReport {
  const units = [...unitsOf(pairs, unitOf).values()];
  const interval = bootstrapRatio(units, options);
  const n = pairs.filter((pair) => unitOf(pair) !== undefined).length;
  return { ratio: ratioOfSums(units), ci: interval === null ? null : [interval.low, interval.high], n };
}

function medianReport(pairs: readonly Pair[], options: BootstrapOptions): RatioReport {
  const groups = new Map<string, number[]>();
  let n = 0;
  for (const pair of pairs) {
    const unit = decodeUnit(pair);
    if (unit === undefined || unit.denominator === 0) continue;
    const key = pair.on.group ?? pair.on.id;
    groups.set(key, [...(groups.get(key) ?? []), unit.numerator / unit.denominator]);
    n++;
  }
  const { median, interval } = bootstrapMedian([...groups.values()], options);
  return { ratio: median, ci: interval === null ? null : [interval.low, interval.high], n };
}

function armReport(
  samples: readonly AbSample[],
  arm: Arm,
  { limits, busyMs }: { limits: Limits; busyMs?: number },
): ArmReport {
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
  const times = (value: (sample: AbSample) => number | null | undefined): Quantiles | null =>
    quantiles(answered.map(value).filter((ms): ms is number => ms !== null && ms !== undefined));
  const headers: Record<string, number> = {};
  for (const { arm_header: header } of answered)
    headers[header ?? "none"] = (headers[header ?? "none"] ?? 0) + 1;
  const tokens = sum(answered, (sample) => sample.predicted_n);
  const perSecond = (count: number): number | null =>
    busyMs === undefined || busyMs <= 0 ? null : (count / busyMs) * 1000;
  return {
    requests: answered.length,
    failed: all.length - answered.length,
    tokens,
    tok_s: decodeMs > 0 ? (decoded / decodeMs) * 1000 : null,
    decode_ms: decodeMs,
    ttft_ms: times((sample) => sample.ttft_ms),
    ttfr_ms: times((sample) => sample.ttfr_ms),
    ttfa_ms: times((sample) => sample.ttfa_ms),
    itl_ms: quantiles(answered.flatMap(tokenGaps)),
    itl_chunk_ms: quantiles(answered.flatMap((sample) => sample.gaps_ms)),
    tpot_ms: times((sample) => sample.tpot_ms),
    e2e_ms: times((sample) => sample.e2e_ms),
    draft_n: drafted,
    draft_n_accepted: accepted,
    acceptance: drafted !== null && accepted !== null && drafted > 0 ? accepted / drafted : null,
    tokens_per_step: told.length > 0 && steps > 0 ? toldTokens / steps : null,
    arm_header: headers,
    throughput: { requests_per_s: perSecond(answered.length), tokens_per_s: perSecond(tokens) },
    goodput: goodput(all, limits, busyMs),
  };
}

/** Times between the tokens of an answer, ms. */
export function tokenGaps(sample: AbSample): number[] {
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

function notesOf(
  run: AbRun,
  arms: Record<Arm, ArmReport>,
  { verified, wanted }: { verified: boolean; wanted: (arm: Arm) => Arm },
): string[] {
  const notes: string[] = [];
  if (run.stopped !== undefined) notes.push(`Not complete: ${run.stopped.message}.`);
  const { on, off } = arms;
  if (wanted("on") === "on" && on.requests > 0) {
    if (!verified) {
      const seen = Object.entries(on.arm_header).map(([value, count]) => `${value}: ${count}`);
      notes.push(
        `The on-arm was not on for every request (x-aded-arm: ${seen.join(", ")}): the ratio does not measure drafts. ` +
          "Is this a stock server, or a proxy with drafts switched off?",
      );
    } else if (on.draft_n === 0) {
      notes.push(
        "The on-arm drafted nothing: the drafter judged that drafts do not pay here, or its link is down.",
      );
    }
  }
  const offDrafted = (off.draft_n ?? 0) > 0 || (off.arm_header.on ?? 0) > 0;
  if (wanted("off") === "off" && offDrafted) notes.push("The off-arm was drafted for: the ratio is too low.");
  const answered = run.samples.filter((sample) => sample.error === null);
  const cached = answered.filter((sample) => (sample.cache_n ?? 0) > 0).length;
  if (cached > 0) notes.push(`Requests that used the prompt cache although they asked not to: ${cached}.`);
  const failed = run.samples.filter((sample) => sample.error !== null);
  if (failed.length > 0)
    notes.push(`Failed requests, which do not count: ${failed.length}; the first: ${failed[0].error}.`);
  if (answered.some((sample) => sample.clock === "client")) {
    notes.push(
      "Decode times are the client's (first text to last); where the server gives no timings, tokens are stream events.",
    );
  }
  return notes;
}

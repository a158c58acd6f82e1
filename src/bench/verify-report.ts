/** What a verify run says: costs with intervals, ratios, whether the logits are the same. Null: not measured. */
import { arch, availableParallelism, cpus } from "node:os";
import { Random } from "../drafter/random.ts";
import { messageOf } from "../errors.ts";
import { quantile } from "./statistics.ts";
import type { DepthCheck, Side, Turn, VerifyOptions, VerifyRun, VerifySetup } from "./verify.ts";
import type { ModelWeights } from "./verify-weights.ts";

/** By width. */
export type Costs = Record<string, number>;
export type Bounds = [low: number, high: number];
export type CostBounds = Record<string, Bounds | null>;

export interface VerifyReport {
  model: string;
  file: string;
  threads: number;
  /** Tokens in the cache. */
  depth: number;
  cache_type: string;
  /** Of a batch of n tokens with the logits of all, µs: lower quartile, which work of others disturbs least. */
  cost_us: Costs;
  stock_cost_us: Costs | null;
  /** Own cost / own cost of 1. */
  ratio: Costs;
  /** Own cost / stock cost of 1. */
  ratio_to_stock: Costs | null;
  /** Stock cost / stock cost of 1. */
  stock_ratio: Costs | null;
  /** Logits of all batches bitwise equal to those of one-by-one decoding; null: it ended before that was known. */
  identical: boolean | null;
  stock_identical: boolean | null;
  /** 512 tokens of a prompt behind `depth` others, µs: lower quartile. */
  prefill_512: Record<Side, number | null>;
  median_us: Record<Side, Costs>;
  /** 95 %, bootstrap over rounds; null with fewer than five. */
  intervals: {
    cost_us: CostBounds;
    stock_cost_us: CostBounds | null;
    ratio: CostBounds;
    ratio_to_stock: CostBounds | null;
    prefill_512: Record<Side, Bounds | null>;
  };
  /** `identical` in detail. */
  checks: Record<Side, DepthCheck[]>;
  /** What a step reads and computes; null: not told by the file. */
  weights: ModelWeights | null;
  /** What all threads read from memory, GB/s: upper quartile. */
  memory_gb_s: number | null;
  /** What the libraries were built for, as llama.cpp tells it. */
  system: Record<Side, string | null>;
  kernels: Record<Side, "batch-invariant" | "stock" | null>;
  rounds: number;
  seed: number;
  environment: VerifyEnvironment;
  /** False: interrupted or failed. */
  complete: boolean;
  error: string | null;
  /** µs: by side, by width (and "prefill"), by round. */
  samples: Record<Side, Record<Turn, number[][]>>;
}

export interface VerifyEnvironment {
  /** ISO 8601, when the measurement of this model began. */
  date: string;
  command: string;
  cpu: string;
  /** Logical cores that this process may use. */
  cores: number;
  /** Load average over a minute when it began: what others were doing. */
  load: number;
}

export function verifyEnvironment(command: string, load: number): VerifyEnvironment {
  return {
    date: new Date().toISOString(),
    command,
    cpu: cpus()[0]?.model.trim() || arch(),
    cores: availableParallelism(),
    load: Math.round(load * 100) / 100,
  };
}

export interface ReportedModel {
  name: string;
  file: string;
}

const LOWER_QUARTILE = 0.25;
const RESAMPLES = 2000;
const LEAST_ROUNDS = 5;

export interface VerifyFindings {
  run: VerifyRun;
  model: ReportedModel;
  weights: ModelWeights | null;
  setup: VerifySetup;
  options: VerifyOptions;
  environment: VerifyEnvironment;
}

export function reportVerify(findings: VerifyFindings): VerifyReport {
  const { run, model, weights, setup, options, environment } = findings;
  const own = new SideCosts(run.samples.own);
  const stock = setup.stock === undefined ? null : new SideCosts(run.samples.stock);
  bootstrap(stock === null ? [own] : [own, stock], options);
  return {
    model: model.name,
    file: model.file,
    threads: setup.threads,
    depth: options.depth,
    cache_type: setup.cacheType,
    cost_us: own.costs,
    stock_cost_us: stock?.costs ?? null,
    ratio: ratios(own, own),
    ratio_to_stock: stock && ratios(own, stock),
    stock_ratio: stock && ratios(stock, stock),
    identical: allIdentical(run.checks.own, run.checked),
    stock_identical: allIdentical(run.checks.stock, run.checks.stock.length === options.widths.length),
    prefill_512: { own: own.at("prefill"), stock: stock?.at("prefill") ?? null },
    median_us: { own: own.medians, stock: stock?.medians ?? {} },
    intervals: {
      cost_us: own.bounds(),
      stock_cost_us: stock?.bounds() ?? null,
      ratio: own.bounds(own),
      ratio_to_stock: stock && own.bounds(stock),
      prefill_512: { own: own.boundsOf("prefill"), stock: stock?.boundsOf("prefill") ?? null },
    },
    checks: run.checks,
    weights,
    memory_gb_s: run.memory.length === 0 ? null : rounded(quantileOf([...run.memory], 1 - LOWER_QUARTILE)),
    system: run.system,
    kernels: {
      own: setup.own.batchInvariant ? "batch-invariant" : "stock",
      stock: stock && "stock",
    },
    rounds: options.rounds,
    seed: options.seed,
    environment,
    complete: run.stopped === undefined,
    error: run.stopped === undefined ? null : messageOf(run.stopped),
    samples: run.samples,
  };
}

/** A difference that was found counts, also when not all was checked. */
function allIdentical(checks: readonly DepthCheck[], complete: boolean): boolean | null {
  if (checks.some(({ identical }) => !identical)) return false;
  return complete ? true : null;
}

/** One side's samples, and what the resamples of the bootstrap make of them. */
class SideCosts {
  readonly rounds: ReadonlyMap<Turn, readonly number[][]>;
  readonly costs: Costs;
  readonly medians: Costs;
  /** Lower quartiles by turn, one per resample. */
  readonly resampled = new Map<Turn, Float64Array>();
  readonly #lower: Costs;

  constructor(samples: Record<Turn, number[][]>) {
    this.rounds = new Map(Object.entries(samples));
    this.#lower = this.#quantiles(LOWER_QUARTILE);
    this.costs = widthsOnly(this.#lower);
    this.medians = widthsOnly(this.#quantiles(0.5));
  }

  at(turn: Turn): number | null {
    return this.#lower[turn] ?? null;
  }

  /** Of each width's cost, or of its ratio to `base`'s cost of 1. */
  bounds(base?: SideCosts): CostBounds {
    return Object.fromEntries(Object.keys(this.costs).map((width) => [width, this.boundsOf(width, base)]));
  }

  boundsOf(turn: Turn, base?: SideCosts): Bounds | null {
    const costs = this.resampled.get(turn);
    const ones = base?.resampled.get("1");
    if (costs === undefined || (base !== undefined && ones === undefined)) return null;
    const values = Array.from(costs, (cost, i) => (ones === undefined ? cost : cost / ones[i]));
    values.sort(ascending);
    return [rounded(quantile(values, 0.025) as number), rounded(quantile(values, 0.975) as number)];
  }

  #quantiles(q: number): Costs {
    const entries = [...this.rounds].map(([turn, rounds]) => [turn, quantileOf(rounds.flat(), q)] as const);
    return Object.fromEntries(entries.map(([turn, value]) => [turn, rounded(value)]));
  }
}

function widthsOnly(costs: Costs): Costs {
  return Object.fromEntries(Object.entries(costs).filter(([turn]) => turn !== "prefill"));
}

/** Sorts `values`. */
function quantileOf(values: number[], q: number): number {
  return quantile(values.sort(ascending), q) as number;
}

function ascending(a: number, b: number): number {
  return a - b;
}

function ratios(of: SideCosts, base: SideCosts): Costs {
  const one = base.at("1");
  if (one === null) return {};
  return Object.fromEntries(Object.entries(of.costs).map(([width, cost]) => [width, rounded(cost / one)]));
}

/** Four digits after the point: a tenth of a nanosecond of µs, and more than any ratio is worth. */
function rounded(value: number): number {
  return Math.round(value * 1e4) / 1e4;
}

/**
 * Draws rounds with replacement, the same ones for all widths and both sides: what disturbs a round disturbs all that is in
 * it. Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8 (blocks of what belongs together).
 */
function bootstrap(sides: readonly SideCosts[], { seed }: Pick<VerifyOptions, "seed">): void {
  // a round that was interrupted is left out
  const all = sides.flatMap(({ rounds }) => [...rounds.values()]);
  const whole = all.length === 0 ? 0 : Math.min(...all.map((rounds) => rounds.length));
  if (whole < LEAST_ROUNDS) return;
  const random = new Random(seed);
  const drawn = new Int32Array(whole);
  for (const { rounds, resampled } of sides) {
    for (const turn of rounds.keys()) resampled.set(turn, new Float64Array(RESAMPLES));
  }
  for (let i = 0; i < RESAMPLES; i++) {
    for (let j = 0; j < whole; j++) drawn[j] = random.below(whole);
    for (const { rounds, resampled } of sides) {
      for (const [turn, samples] of rounds) {
        const values: number[] = [];
        for (const round of drawn) values.push(...samples[round]);
        const quartiles = resampled.get(turn) as Float64Array;
        quartiles[i] = quantileOf(values, LOWER_QUARTILE);
      }
    }
  }
}

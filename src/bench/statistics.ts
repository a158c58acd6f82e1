/** Statistics for measurements: quantiles, and bootstrap intervals for ratios of sums. Nothing measured gives null. */
import { Random } from "../drafter/random.ts";

export interface Quantiles {
  p50: number;
  p95: number;
  p99: number;
}

/** One independent unit of a ratio Σ numerator / Σ denominator. */
export interface RatioUnit {
  numerator: number;
  denominator: number;
}

export interface Interval {
  low: number;
  high: number;
}

export interface BootstrapOptions {
  seed: number;
  /** @default 10000 */
  resamples?: number;
  /** Share of intervals that shall hold the true ratio. @default 0.95 */
  level?: number;
}

const LEAST_UNITS = 5;

/**
 * Quantile by linear interpolation between the closest ranks (type 7, as R and NumPy do by default).
 * @param sorted ascending
 * @param q 0 … 1
 */
export function quantile(sorted: readonly number[], q: number): number | null {
  if (sorted.length === 0) return null;
  const rank = (sorted.length - 1) * q;
  const below = Math.floor(rank);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (rank - below);
}

export function median(values: readonly number[]): number | null {
  return quantile([...values].sort(ascending), 0.5);
}

export function quantiles(values: readonly number[]): Quantiles | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort(ascending);
  const at = (q: number): number => quantile(sorted, q) as number;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

function ascending(a: number, b: number): number {
  return a - b;
}

/** Σ numerator / Σ denominator, or null without units or with a denominator of 0. */
export function ratioOfSums(units: readonly RatioUnit[]): number | null {
  let numerator = 0;
  let denominator = 0;
  for (const unit of units) {
    numerator += unit.numerator;
    denominator += unit.denominator;
  }
  return denominator > 0 ? numerator / denominator : null;
}

/**
 * Expanded percentile bootstrap interval of Σ numerator / Σ denominator: units are drawn with replacement. Plain
 * percentiles are too narrow for few units; the percentiles taken here are those at which a normal bootstrap distribution would
 * give the t interval.
 * Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; Hesterberg, What Teachers Should Know
 * About the Bootstrap, 2015 (arXiv 1411.5279), section 5.3, for the expansion.
 * @returns null for fewer than five units: resampling so few would claim a precision that is not there
 */
export function bootstrapRatio(
  units: readonly RatioUnit[],
  { seed, resamples = 10_000, level = 0.95 }: BootstrapOptions,
): Interval | null {
  if (ratioOfSums(units) === null) return null;
  const numerators = Float64Array.from(units, (unit) => unit.numerator);
  const denominators = Float64Array.from(units, (unit) => unit.denominator);
  const ratio = (drawn: Int32Array): number => sumAt(numerators, drawn) / sumAt(denominators, drawn);
  return bootstrap(units.length, ratio, { seed, resamples, level });
}

/** The same for any statistic of n units. @param statistic of the units drawn, given by their indices */
export function bootstrap(
  n: number,
  statistic: (drawn: Int32Array) => number,
  { seed, resamples = 10_000, level = 0.95 }: BootstrapOptions,
): Interval | null {
  if (n < LEAST_UNITS) return null;
  const random = new Random(seed);
  const drawn = new Int32Array(n);
  const values: number[] = [];
  for (let r = 0; r < resamples; r++) {
    for (let i = 0; i < n; i++) drawn[i] = random.below(n);
    const value = statistic(drawn);
    if (Number.isFinite(value)) values.push(value);
  }
  values.sort(ascending);
  const tail = expandedTail((1 - level) / 2, n);
  const low = quantile(values, tail);
  const high = quantile(values, 1 - tail);
  return low === null || high === null ? null : { low, high };
}

/**
 * The median of values that come in groups, none of them empty; with the same interval as a ratio's: groups are drawn with replacement, each with all
 * of its values. A few values far off, however far, move it by no more than their number.
 */
export function bootstrapMedian(
  groups: readonly (readonly number[])[],
  options: BootstrapOptions,
): { median: number | null; interval: Interval | null } {
  const sorted = groups
    .flatMap((own, group) => own.map((value) => ({ value, group })))
    .sort((a, b) => ascending(a.value, b.value));
  const values = Float64Array.from(sorted, ({ value }) => value);
  const order = Int32Array.from(sorted, ({ group }) => group);
  const weights = new Int32Array(groups.length);
  const medianOf = (drawn: Int32Array): number => {
    weights.fill(0);
    let count = 0;
    for (let i = 0; i < drawn.length; i++) {
      weights[drawn[i]]++;
      count += groups[drawn[i]].length;
    }
    // the values at the two middle ranks, which are one where the number is odd
    const [lower, upper] = [(count - 1) >> 1, count >> 1];
    let passed = weights[order[0]];
    let at = 0;
    while (passed <= lower) passed += weights[order[++at]];
    const low = values[at];
    while (passed <= upper) passed += weights[order[++at]];
    return (low + values[at]) / 2;
  };
  const interval = bootstrap(groups.length, medianOf, options);
  return { median: quantile([...values], 0.5), interval };
}

/** Sum of the values at these indices. */
export function sumAt(values: Float64Array, drawn: Int32Array): number {
  let sum = 0;
  for (let i = 0; i < drawn.length; i++) sum += values[drawn[i]];
  return sum;
}

/** The tail of the bootstrap distribution beyond which lies what a t interval of n units leaves out on one side. */
function expandedTail(tail: number, n: number): number {
  return normalCdf(Math.sqrt(n / (n - 1)) * studentQuantile(tail, n - 1));
}

/** Standard normal distribution function; absolute error below 1.5e-7. Source: Abramowitz and Stegun, 26.2.17. */
export function normalCdf(x: number): number {
  const t = 1 / (1 + 0.2316419 * Math.abs(x));
  const poly =
    t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  const tail = (Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI)) * poly;
  return x >= 0 ? 1 - tail : tail;
}

/** Standard normal quantile, by bisection on the distribution function. @param p 0 < p < 1 */
export function normalQuantile(p: number): number {
  let low = -9;
  let high = 9;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (normalCdf(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/**
 * Student's t quantile for 4 degrees of freedom and more; relative error below 0.3 %.
 * Source: Abramowitz and Stegun, 26.7.5 (expansion around the normal quantile).
 */
export function studentQuantile(p: number, df: number): number {
  const z = normalQuantile(p);
  const [z3, z5, z7, z9] = [z ** 3, z ** 5, z ** 7, z ** 9];
  return (
    z +
    (z3 + z) / (4 * df) +
    (5 * z5 + 16 * z3 + 3 * z) / (96 * df ** 2) +
    (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * df ** 3) +
    (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * df ** 4)
  );
}

/** Points of the empirical distribution function: values ascending, and the share of values up to each. */
export interface Ecdf {
  value: number[];
  share: number[];
}

/** @param most points that are kept, at even distances in rank, the smallest and the largest among them */
export function ecdf(values: readonly number[], most = 400): Ecdf {
  const sorted = [...values].sort(ascending);
  const n = sorted.length;
  const points = Math.min(most, n);
  const value: number[] = [];
  const share: number[] = [];
  for (let i = 0; i < points; i++) {
    const rank = points === 1 ? n - 1 : Math.round((i * (n - 1)) / (points - 1));
    value.push(sorted[rank]);
    share.push((rank + 1) / n);
  }
  return { value, share };
}

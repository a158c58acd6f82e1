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
 * 95 % percentile bootstrap interval of Σ numerator / Σ denominator: units are drawn with replacement.
 * Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
 * @returns null for fewer than five units: resampling so few would claim a precision that is not there
 */
export function bootstrapRatio(
  units: readonly RatioUnit[],
  { seed, resamples = 10_000 }: { seed: number; resamples?: number },
): Interval | null {
  const n = units.length;
  if (n < LEAST_UNITS || ratioOfSums(units) === null) return null;
  const random = new Random(seed);
  const numerators = Float64Array.from(units, (unit) => unit.numerator);
  const denominators = Float64Array.from(units, (unit) => unit.denominator);
  const ratios: number[] = [];
  for (let r = 0; r < resamples; r++) {
    let numerator = 0;
    let denominator = 0;
    for (let i = 0; i < n; i++) {
      const drawn = random.below(n);
      numerator += numerators[drawn];
      denominator += denominators[drawn];
    }
    if (denominator > 0) ratios.push(numerator / denominator);
  }
  ratios.sort(ascending);
  const low = quantile(ratios, 0.025);
  const high = quantile(ratios, 0.975);
  return low === null || high === null ? null : { low, high };
}

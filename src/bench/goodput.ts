/**
 * Goodput: requests that were answered within given limits, as DistServe defines it (arXiv 2401.09670) and serving
 * benchmarks report it. A failed request keeps no limit.
 */
import type { AbSample } from "./ab-sample.ts";
import { quantile } from "./statistics.ts";

/** Largest values that a request may have, ms. `itl` limits the 99th percentile of its own times between chunks. */
export interface Limits {
  ttft?: number;
  tpot?: number;
  e2e?: number;
  itl?: number;
}

export const LIMIT_NAMES = ["ttft", "tpot", "e2e", "itl"] as const satisfies readonly (keyof Limits)[];

export interface GoodputReport {
  limits: Limits;
  /** Requests that kept all limits, and their share of all. */
  kept: number;
  share: number;
  /** Per second in which the arm had requests running. */
  requests_per_s: number | null;
}

/** @returns null without limits or requests */
export function goodput(
  samples: readonly AbSample[],
  limits: Limits,
  busyMs: number | undefined,
): GoodputReport | null {
  if (Object.keys(limits).length === 0 || samples.length === 0) return null;
  const kept = samples.filter((sample) => keeps(sample, limits)).length;
  return {
    limits,
    kept,
    share: kept / samples.length,
    requests_per_s: busyMs === undefined || busyMs <= 0 ? null : (kept / busyMs) * 1000,
  };
}

function keeps(sample: AbSample, limits: Limits): boolean {
  if (sample.error !== null) return false;
  const within = (value: number | null, limit: number | undefined): boolean =>
    limit === undefined || (value !== null && value <= limit);
  const pause = quantile(
    [...sample.gaps_ms].sort((a, b) => a - b),
    0.99,
  );
  return (
    within(sample.ttft_ms, limits.ttft) &&
    // an answer of one token has no time between tokens
    (sample.tpot_ms === null
      ? sample.predicted_n < 2 || limits.tpot === undefined
      : within(sample.tpot_ms, limits.tpot)) &&
    within(sample.e2e_ms, limits.e2e) &&
    within(pause ?? 0, limits.itl)
  );
}

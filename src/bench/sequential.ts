/**
 * Stopping early without fooling oneself. Looking at an interval again and again, and stopping when it pleases, makes a 95 %
 * interval cover less than 95 %. So the looks are fixed beforehand, at equal shares of the planned pairs, and the error
 * probability is divided among them (Bonferroni): with K looks every interval has the level 1 - 0.05/K, and the chance that any of the
 * K misses the true ratio is at most 5 %, whatever decides at which of them the run stops.
 * Source: alpha spending over fixed looks, Lan and DeMets, Biometrika 70, 1983; equal parts are its simplest case.
 */
import type { RatioReport } from "./ratio.ts";

const ALPHA = 0.05;

export interface SequentialPlan {
  method: "fixed looks, alpha divided equally (Bonferroni)";
  /** Numbers of pairs after which the run may stop; the last is the whole run. */
  looks: number[];
  /** Of each interval. */
  level: number;
  /** Stop when (high - low) / ratio is at most this. */
  width: number;
}

/** @param looks how often the run may stop, 2 … 20; fewer where there are fewer pairs than five times that */
export function planLooks(pairs: number, { width, looks }: { width: number; looks: number }): SequentialPlan {
  const count = Math.max(1, Math.min(looks, Math.floor(pairs / 5)));
  const at = Array.from({ length: count }, (_, i) => Math.ceil((pairs * (i + 1)) / count));
  return {
    method: "fixed looks, alpha divided equally (Bonferroni)",
    looks: at,
    level: 1 - ALPHA / count,
    width,
  };
}

export function narrowEnough({ ratio, ci }: RatioReport, width: number): boolean {
  return ratio !== null && ci !== null && (ci[1] - ci[0]) / ratio <= width;
}

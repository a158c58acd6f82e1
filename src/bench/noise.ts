/** The verdict: whether the arms differ, and if that cannot be told, how noisy the machine is and how many pairs it would take. */
import type { AbSample } from "./ab-sample.ts";
import type { RatioReport } from "./ratio.ts";
import { median, type RatioUnit } from "./statistics.ts";

export type Verdict = "faster" | "slower" | "same" | "cannot tell";

export interface NoiseReport {
  /** Of the on-arm. "same": the whole interval lies within `resolve` of 1. */
  verdict: Verdict;
  /** The smallest relative difference that matters. */
  resolve: number;
  /** Half of the interval's width, relative to the ratio. */
  half_width: number | null;
  /** Robust standard deviation of the prompts' ratios around the overall one, relative. */
  spread: number | null;
  /** Robust standard deviation of the off-arm's time per token, relative: what the machine itself does. */
  machine: number | null;
  /** Pairs needed for an interval of ± `resolve`, by the interval at hand. */
  pairs_needed: number | null;
  text: string;
}

/** From the median absolute deviation to the standard deviation of a normal distribution. */
const MAD_TO_SD = 1.4826;

interface Measured {
  ratio: RatioReport;
  units: ReadonlyMap<string, RatioUnit>;
  pairs: readonly { off: AbSample }[];
  resolve: number;
}

export function judgeNoise({ ratio: { ratio, ci, n }, units, pairs, resolve }: Measured): NoiseReport {
  const halfWidth = ratio === null || ci === null ? null : (ci[1] - ci[0]) / 2 / ratio;
  const ratios = [...units.values()].map(({ numerator, denominator }) => numerator / denominator);
  const spread = robustSpread(ratios);
  const machine = robustSpread(
    pairs.flatMap(({ off }) =>
      off.decode_ms === null || off.predicted_n < 2 ? [] : [off.decode_ms / (off.predicted_n - 1)],
    ),
  );
  // an interval's width falls with the square root of the number of pairs
  const needed = halfWidth === null ? null : Math.max(5, Math.ceil(n * (halfWidth / resolve) ** 2));
  let verdict: Verdict = "cannot tell";
  if (ci !== null) {
    if (ci[0] > 1) verdict = "faster";
    else if (ci[1] < 1) verdict = "slower";
    else if (ci[0] >= 1 - resolve && ci[1] <= 1 + resolve) verdict = "same";
  }
  return {
    verdict,
    resolve,
    half_width: halfWidth,
    spread,
    machine,
    pairs_needed: needed,
    text: explain(verdict, { n, halfWidth, machine, needed, resolve }),
  };
}

/** Relative to the median; null for fewer than three values. */
function robustSpread(values: readonly number[]): number | null {
  const middle = values.length < 3 ? null : median(values);
  if (middle === null || middle === 0) return null;
  const deviation = median(values.map((value) => Math.abs(value - middle)));
  return deviation === null ? null : (MAD_TO_SD * deviation) / middle;
}

function explain(
  verdict: Verdict,
  figures: {
    n: number;
    halfWidth: number | null;
    machine: number | null;
    needed: number | null;
    resolve: number;
  },
): string {
  const { n, halfWidth, machine, needed, resolve } = figures;
  const percent = (value: number): string => `${(value * 100).toFixed(1)} %`;
  if (verdict === "faster") return "The on-arm is faster: the whole interval lies above 1.";
  if (verdict === "slower") return "The on-arm is slower: the whole interval lies below 1.";
  if (verdict === "same") return `The arms are the same within ${percent(resolve)}.`;
  if (halfWidth === null)
    return `Too few prompts to tell (${n} pairs; at least 5 different prompts are needed).`;
  const parts = [`Too noisy to tell: the interval is ±${percent(halfWidth)} wide and contains 1.`];
  if (machine !== null)
    parts.push(`The off-arm's own time per token varies by ${percent(machine)} between requests.`);
  if (needed !== null && needed > n)
    parts.push(`About ${needed} pairs would make it ±${percent(resolve)}; a quieter machine needs fewer.`);
  return parts.join(" ");
}

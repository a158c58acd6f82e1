/** What the evaluations say of the speed-up and of the texts: the A/B report of their answers, in short. */
import type { AbReport } from "../bench/ab-report.ts";
import { reportAb } from "../bench/ab-report.ts";
import type { AbSample } from "../bench/ab-sample.ts";
import type { BenchEnvironment } from "../bench/environment.ts";

export interface EvalRun {
  samples: AbSample[];
  complete: boolean;
  maxTokens: number;
  seed: number;
  temperature: number;
  model?: string;
}

/** Turns of one question, and samples of one task, are one unit of the interval. */
export function evalReport(run: EvalRun, environment: BenchEnvironment): AbReport {
  const ids = new Set(run.samples.map(({ id }) => id));
  const prompts = [...ids].map((id) => ({ id, category: "", text: "" }));
  const { maxTokens, seed, temperature, model } = run;
  const options = { prompts, maxTokens, repeat: 1, concurrency: 1, seed, temperature, warmup: 0, model };
  return reportAb({ samples: run.samples, complete: run.complete }, options, environment);
}

/** One line: the ratio with its interval, tokens per step, and whether any text changed. */
export function speedLine({ overall, tokens_per_step, same_text, n }: AbReport): string {
  const { ratio, ci } = overall;
  const interval = ci === null ? "" : ` (95 %: ${ci[0].toFixed(3)} - ${ci[1].toFixed(3)})`;
  return (
    `decode time off / on ${ratio === null ? "N/A" : ratio.toFixed(3)}${interval}, ` +
    `${tokens_per_step === null ? "N/A" : tokens_per_step.toFixed(3)} tokens per step, same text ${same_text} of ${n}`
  );
}

/**
 * Two A/B reports against each other: before and after a change, this machine and that one. Only prompts that both runs
 * measured count. The runs were not interleaved, so their off-arms are compared too: where these differ, the machine differed.
 */
import { type AbReport, decodeRatio, decodeUnits } from "./ab-report.ts";
import type { AbSample } from "./ab-sample.ts";
import type { Arm } from "./chat-client.ts";
import type { RatioReport } from "./ratio.ts";
import { bootstrap, sumAt } from "./statistics.ts";

export interface CompareSide {
  name: string;
  date: string;
  command: string;
  cpu: string;
  model: string | null;
  n: number;
  ratio: number | null;
  ci: [low: number, high: number] | null;
  tokens_per_step: number | null;
  complete: boolean;
}

export interface CompareReport {
  a: CompareSide;
  b: CompareSide;
  /** Prompts that both measured. */
  shared: number;
  /** Decode time of A / decode time of B, arm by arm; above 1: B is faster. */
  on: RatioReport;
  off: RatioReport;
  /** (B's ratio off / on) / (A's ratio off / on); above 1: in B the on-arm gains more. */
  speedup: RatioReport;
  /** By category, of the on-arms. */
  categories: Record<string, RatioReport>;
  /** Pairs of on-arm answers that are the same text. */
  same_text: number;
  notes: string[];
}

const SEED = 1;
const LEVEL = 0.95;
/** Off-arms further apart than this tell of another machine, or of a busy one. */
const DRIFT = 0.1;

export interface NamedReport {
  name: string;
  report: AbReport;
}

export function compareReports(a: NamedReport, b: NamedReport): CompareReport {
  const on = paired(a.report, b.report, "on");
  const off = paired(a.report, b.report, "off");
  const categories: Record<string, RatioReport> = {};
  for (const category of new Set(on.map((sample) => sample.category))) {
    categories[category] = ratioOf(on.filter((sample) => sample.category === category));
  }
  const offRatio = ratioOf(off);
  const speedup = speedupOf(a.report, b.report);
  const same = on.filter((sample) => sample.arm === "on");
  const texts = new Map(
    on.filter((sample) => sample.arm === "off").map((sample) => [keyOf(sample), sample.text]),
  );
  const notes: string[] = [];
  if (speedup.n === 0) notes.push("No prompt was measured in both runs: there is nothing to compare.");
  if (offRatio.ratio !== null && Math.abs(Math.log(offRatio.ratio)) > DRIFT) {
    notes.push(
      `The off-arms differ by a factor of ${offRatio.ratio.toFixed(2)}: the machines, the engines or the load differed; ` +
        "compare the speed-up, not the times.",
    );
  }
  for (const key of ["model", "quantisation"] as const) {
    const [before, after] = [a.report.environment.engine[key], b.report.environment.engine[key]];
    if (before !== after) notes.push(`${key}: ${before ?? "unknown"} in A, ${after ?? "unknown"} in B.`);
  }
  for (const [name, { report }] of Object.entries({ A: a, B: b })) {
    if (!report.complete) notes.push(`Run ${name} is not complete.`);
  }
  return {
    a: sideOf(a),
    b: sideOf(b),
    shared: speedup.n,
    on: ratioOf(on),
    off: offRatio,
    speedup,
    categories,
    same_text: same.filter((sample) => texts.get(keyOf(sample)) === sample.text).length,
    notes,
  };
}

function sideOf({ name, report }: NamedReport): CompareSide {
  const { environment, overall, n, tokens_per_step, complete } = report;
  return {
    name,
    date: environment.date,
    command: environment.command,
    cpu: environment.cpu,
    model: environment.engine.model,
    n,
    ratio: overall.ratio,
    ci: overall.ci,
    tokens_per_step,
    complete,
  };
}

function keyOf({ id, repeat }: Pick<AbSample, "id" | "repeat">): string {
  return `${repeat} ${id}`;
}

/** One arm of both runs as an A/B of its own: A is the "off", B the "on". */
function paired(a: AbReport, b: AbReport, arm: Arm): AbSample[] {
  const of = (report: AbReport, as: Arm): AbSample[] =>
    report.samples
      .filter((sample) => sample.arm === arm && sample.error === null)
      .map((sample) => ({ ...sample, arm: as }));
  const [before, after] = [of(a, "off"), of(b, "on")];
  const [inA, inB] = [new Set(before.map(keyOf)), new Set(after.map(keyOf))];
  return [...before, ...after].filter((sample) => inA.has(keyOf(sample)) && inB.has(keyOf(sample)));
}

function ratioOf(samples: readonly AbSample[]): RatioReport {
  return decodeRatio(samples, { seed: SEED, level: LEVEL });
}

function speedupOf(a: AbReport, b: AbReport): RatioReport {
  const [unitsA, unitsB] = [decodeUnits(a.samples), decodeUnits(b.samples)];
  const shared = [...unitsA.keys()].filter((key) => unitsB.has(key));
  const column = (units: typeof unitsA, side: "numerator" | "denominator"): Float64Array =>
    Float64Array.from(shared, (key) => units.get(key)?.[side] ?? 0);
  const [aOff, aOn] = [column(unitsA, "numerator"), column(unitsA, "denominator")];
  const [bOff, bOn] = [column(unitsB, "numerator"), column(unitsB, "denominator")];
  const statistic = (drawn: Int32Array): number =>
    (sumAt(bOff, drawn) * sumAt(aOn, drawn)) / (sumAt(bOn, drawn) * sumAt(aOff, drawn));
  const all = Int32Array.from(shared, (_, i) => i);
  const interval = bootstrap(shared.length, statistic, { seed: SEED, level: LEVEL });
  return {
    ratio: shared.length === 0 ? null : statistic(all),
    ci: interval === null ? null : [interval.low, interval.high],
    n: shared.length,
  };
}

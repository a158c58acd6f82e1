/** A verify report for the terminal: a table, and the costs as bars. */
import { aligned } from "./ab-format.ts";
import type { Bounds, VerifyReport } from "./verify-report.ts";

const BAR_COLUMNS = 48;
/** Load beyond which other work is worth a note. */
const BUSY = 0.5;

type Row = readonly string[];

export function formatVerify(report: VerifyReport): string {
  const parts = [headOf(report)];
  if (Object.keys(report.cost_us).length > 0) parts.push(aligned(rowsOf(report)), plotOf(report));
  parts.push(tailOf(report));
  return `${parts
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n")}\n`;
}

function headOf(report: VerifyReport): string[] {
  const { model, threads, depth, cache_type: type, rounds, environment, complete } = report;
  const timed = `logits of all tokens of a batch, ${rounds} rounds: lower quartile, 95 % interval`;
  return [
    `${model} on ${environment.cpu}, ${threads} ${threads === 1 ? "thread" : "threads"}`,
    `${depth} tokens in the cache (${type}), ${rounds === 0 ? "logits compared only" : timed}${complete ? "" : " (NOT COMPLETE)"}`,
  ];
}

function rowsOf(report: VerifyReport): Row[] {
  const { intervals } = report;
  const stock = report.stock_cost_us;
  const head = ["tokens", "own ms", "95 %", "own / own 1"];
  if (stock) head.push("own / stock 1", "95 %", "stock ms", "stock / stock 1");
  const rows: Row[] = [head];
  for (const [width, cost] of Object.entries(report.cost_us)) {
    const row = [width, ms(cost), boundsMs(intervals.cost_us[width]), fixed(report.ratio[width])];
    if (stock) {
      row.push(fixed(report.ratio_to_stock?.[width]), bounds(intervals.ratio_to_stock?.[width]));
      row.push(ms(stock[width]), fixed(report.stock_ratio?.[width]));
    }
    rows.push(row);
  }
  const prefill = report.prefill_512;
  if (prefill.own !== null) {
    const row = ["prompt of 512", ms(prefill.own), boundsMs(intervals.prefill_512.own), ""];
    if (stock) row.push("", "", ms(prefill.stock ?? undefined), "");
    rows.push(row);
  }
  return rows;
}

/** Bars of both builds' costs in units of one: the stock build's cost of a single token, or else the own one. */
function plotOf({ cost_us: own, stock_cost_us: stock }: VerifyReport): string[] {
  const unit = stock?.["1"] ?? own["1"];
  if (unit === undefined) return [];
  const largest = Math.max(...Object.values(own), ...Object.values(stock ?? {}));
  const bar = (cost: number, mark: string): string =>
    `${mark.repeat(Math.max(1, Math.round((BAR_COLUMNS * cost) / largest)))} ${fixed(cost / unit)}`;
  const lines = [`cost of n tokens over that of one token${stock ? " on the stock build" : ""}`];
  for (const [width, cost] of Object.entries(own)) {
    const label = width.padStart(4);
    lines.push(`${label} ${stock ? "own   " : ""}${bar(cost, "█")}`);
    if (stock?.[width] !== undefined) lines.push(`     stock ${bar(stock[width], "░")}`);
  }
  return lines;
}

function tailOf(report: VerifyReport): string[] {
  const { checks, identical, error, environment } = report;
  const depths = [...new Set(checks.own.map(({ depth }) => depth))].join(", ");
  const widths = [...new Set(checks.own.map(({ n }) => n))].join(", ");
  const lines = [...rooflineOf(report)];
  if (identical)
    lines.push(`Identical to one-by-one decoding: batches of ${widths} tokens at depth ${depths}.`);
  if (identical === null) lines.push("Whether the logits are those of one-by-one decoding is not known.");
  for (const { depth, n, max_diff: diff } of checks.own.filter((check) => !check.identical)) {
    lines.push(
      `NOT IDENTICAL: batches of ${n} at depth ${depth}: a logit differs by ${diff ?? "more than can be told"}.`,
    );
  }
  const differing = checks.stock.filter((check) => !check.identical);
  if (checks.stock.length > 0) {
    const most = Math.max(...checks.stock.map(({ max_diff: diff }) => diff ?? Number.POSITIVE_INFINITY));
    lines.push(
      differing.length === 0
        ? "The stock build's logits are identical too."
        : `The stock build's logits differ for batches of ${differing.map(({ n }) => n).join(", ")}: by up to ${most.toPrecision(3)}.`,
    );
  }
  if (environment.load > BUSY && report.rounds > 0) {
    lines.push(
      `Note: other work was running when this began (load ${environment.load}); times may be too long.`,
    );
  }
  if (error !== null) lines.push(`Note: ended early: ${error.split("\n")[0]}`);
  return lines;
}

/** What the own costs of 1 and of 8 tokens mean for memory and for arithmetic; the cache is not counted. */
function rooflineOf({ weights, cost_us: cost, memory_gb_s: rate }: VerifyReport): string[] {
  if (weights === null) return [];
  const types = Object.entries(weights.types).sort(([, a], [, b]) => b - a);
  const mixed = types.map(([type, bytes]) => `${type} ${(bytes / 1e6).toFixed(1)}`).join(", ");
  let line = `A step reads ${(weights.bytes / 1e6).toFixed(1)} MB of weights (${mixed})`;
  const [one, eight] = [cost["1"], cost["8"]];
  if (one !== undefined) line += `: ${(weights.bytes / one / 1e3).toFixed(1)} GB/s with 1 token`;
  if (rate !== null) line += ` (memory gives ${rate.toFixed(1)})`;
  if (eight !== undefined)
    line += `, ${((8 * 2 * weights.parameters) / eight / 1e3).toFixed(1)} GFLOP/s with 8`;
  return [`${line}.`];
}

function ms(us: number | undefined): string {
  return us === undefined ? "N/A" : (us / 1000).toFixed(2);
}

function fixed(value: number | undefined): string {
  return value === undefined ? "N/A" : value.toFixed(2);
}

function bounds(range: Bounds | null | undefined): string {
  return range ? `${fixed(range[0])}-${fixed(range[1])}` : "N/A";
}

function boundsMs(range: Bounds | null | undefined): string {
  return range ? `${ms(range[0])}-${ms(range[1])}` : "N/A";
}

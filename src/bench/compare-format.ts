/** A comparison of two reports as a table for the terminal. */
import { aligned } from "./ab-format.ts";
import type { CompareReport, CompareSide } from "./compare.ts";
import type { RatioReport } from "./ratio.ts";

function row(name: string, { ratio, ci, n }: RatioReport): string[] {
  return [
    name,
    ratio === null ? "N/A" : ratio.toFixed(3),
    ci === null ? "N/A" : `${ci[0].toFixed(3)} - ${ci[1].toFixed(3)}`,
    String(n),
  ];
}

function side(
  letter: string,
  { name, date, model, cpu, ratio, ci, tokens_per_step, n }: CompareSide,
): string {
  const interval = ci === null ? "" : ` (${ci[0].toFixed(3)} - ${ci[1].toFixed(3)})`;
  return (
    `${letter}: ${name}, ${date.slice(0, 16).replace("T", " ")}, ${model ?? "unknown model"} on ${cpu}; ` +
    `off / on ${ratio === null ? "N/A" : ratio.toFixed(3)}${interval}, ` +
    `${tokens_per_step === null ? "N/A" : tokens_per_step.toFixed(3)} tokens per step, ${n} pairs`
  );
}

export function formatCompare(report: CompareReport): string {
  const rows = [
    ["", "ratio", "95 % interval", "prompts"],
    row("on-arm, time of A / time of B", report.on),
    ...Object.entries(report.categories).map(([name, ratio]) => row(`  ${name}`, ratio)),
    row("off-arm, time of A / time of B", report.off),
    row("speed-up of B / speed-up of A", report.speedup),
  ];
  const lines = [
    side("A", report.a),
    side("B", report.b),
    "",
    ...aligned(rows),
    "",
    `Same text in the on-arms: ${report.same_text} of ${report.on.n}.`,
    ...report.notes.map((note) => `Note: ${note}`),
  ];
  return `${lines.join("\n")}\n`;
}

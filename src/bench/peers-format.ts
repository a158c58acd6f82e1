/** A peers report for the terminal. */
import { aligned } from "./ab-format.ts";
import type { PeersReport } from "./peers.ts";

export function formatPeers(report: PeersReport): string {
  const names = Object.keys(report.arms);
  const rows = [
    ["arm", `${report.plain} / arm`, "95 %", "ms per token", "tokens/step", "accepted", "same text"],
    ...Object.entries(report.arms).map(([name, arm]) => [
      name,
      fixed(arm.ratio, 2),
      arm.ci === null ? "N/A" : `${fixed(arm.ci[0], 2)} – ${fixed(arm.ci[1], 2)}`,
      fixed(arm.ms_per_token, 2),
      fixed(arm.tokens_per_step, 2),
      arm.acceptance === null ? "–" : `${fixed(arm.acceptance * 100, 0)} %`,
      `${arm.same_text} of ${arm.n}`,
    ]),
  ];
  const categories = [
    ["category", ...names],
    ...Object.entries(report.categories).map(([name, ratios]) => [
      name,
      ...names.map((arm) => fixed(ratios[arm] ?? null, 2)),
    ]),
  ];
  const best = report.aded_to_best;
  const lines = [
    `Decode time of ${report.plain} over that of each arm, ${report.n} prompts, interleaved${report.complete ? "" : " (NOT COMPLETE)"}`,
    aligned(rows).join("\n"),
    aligned(categories).join("\n"),
  ];
  if (best !== null) {
    const bounds = best.ci === null ? "" : ` (${fixed(best.ci[0], 2)} – ${fixed(best.ci[1], 2)})`;
    lines.push(`Against the fastest other arm, ${best.arm}: ${fixed(best.ratio, 2)}${bounds}`);
  }
  if (report.error !== null) lines.push(`stopped: ${report.error}`);
  return `${lines.join("\n\n")}\n`;
}

function fixed(value: number | null, digits: number): string {
  return value === null ? "N/A" : value.toFixed(digits);
}

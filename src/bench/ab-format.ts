/** An A/B report as a table for the terminal, as Markdown, and its samples as CSV. */

import type { AbSample } from "./ab.ts";
import type { AbReport, ArmReport, RatioReport } from "./ab-report.ts";
import type { Quantiles } from "./statistics.ts";

const SHOWN_DIFFERENCES = 5;

type Row = readonly string[];

interface Sections {
  head: string[];
  ratios: Row[];
  arms: Row[];
  tail: string[];
}

function fixed(value: number | null, digits: number): string {
  return value === null ? "N/A" : value.toFixed(digits);
}

function ratioRow(name: string, { ratio, ci, n }: RatioReport): Row {
  const interval = ci === null ? "N/A" : `${ci[0].toFixed(3)} - ${ci[1].toFixed(3)}`;
  return [name, fixed(ratio, 3), interval, String(n)];
}

function armRows({ on, off }: { on: ArmReport; off: ArmReport }): Row[] {
  const row = (name: string, of: (arm: ArmReport) => string): Row => [name, of(on), of(off)];
  const times = (name: string, of: (arm: ArmReport) => Quantiles | null): Row =>
    row(name, (arm) => {
      const at = of(arm);
      return at === null ? "N/A" : `${at.p50.toFixed(2)} / ${at.p95.toFixed(2)} / ${at.p99.toFixed(2)}`;
    });
  return [
    ["", "drafts on", "drafts off"],
    row("requests (failed)", (arm) => `${arm.requests} (${arm.failed})`),
    row("tokens", (arm) => String(arm.tokens)),
    row("tokens/s", (arm) => fixed(arm.tok_s, 2)),
    row("tokens per step", (arm) => fixed(arm.tokens_per_step, 3)),
    row("drafts accepted", (arm) =>
      arm.acceptance === null
        ? "N/A"
        : `${arm.draft_n_accepted} of ${arm.draft_n} (${(arm.acceptance * 100).toFixed(1)} %)`,
    ),
    times("TTFT ms, p50/p95/p99", (arm) => arm.ttft_ms),
    times("ITL per token ms", (arm) => arm.itl_ms),
    times("ITL per chunk ms", (arm) => arm.itl_chunk_ms),
    times("TPOT ms", (arm) => arm.tpot_ms),
    times("E2E ms", (arm) => arm.e2e_ms),
  ];
}

function sectionsOf(report: AbReport): Sections {
  const { environment, options } = report;
  const { engine } = environment;
  const tail = [`Same text: ${report.same_text} of ${report.n} pairs.`];
  for (const { id, index, on, off } of report.differences.slice(0, SHOWN_DIFFERENCES)) {
    tail.push(
      `  ${id} differs from character ${index}: on ${JSON.stringify(on)}, off ${JSON.stringify(off)}`,
    );
  }
  const hidden = report.differences.length - SHOWN_DIFFERENCES;
  if (hidden > 0) tail.push(`  and ${hidden} more (see --json)`);
  for (const note of report.notes) tail.push(`Note: ${note}`);
  return {
    head: [
      `${engine.model ?? "unknown model"} on ${environment.cpu} (${environment.cores} cores), engine ${engine.build ?? "unknown"}`,
      `${options.prompts} prompts x ${options.repeat}, ${options.maxTokens} tokens at most, temperature ${options.temperature}, ` +
        `${options.concurrency} at once, seed ${options.seed}${report.complete ? "" : " (NOT COMPLETE)"}`,
    ],
    ratios: [
      ["decode time, off / on", "ratio", "95 % interval", "pairs"],
      ratioRow("overall", report.overall),
      ...Object.entries(report.categories).map(([name, ratio]) => ratioRow(`  ${name}`, ratio)),
      ratioRow("whole request (E2E)", report.overall.e2e),
    ],
    arms: armRows(report.arms),
    tail,
  };
}

/** Lines of a table: the first column to the left, the others to the right. */
export function aligned(rows: readonly Row[]): string[] {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
      .join("  ")
      .trimEnd(),
  );
}

function markdownTable(rows: readonly Row[]): string[] {
  const line = (row: Row): string =>
    `| ${row.map((cell) => cell.trim().replaceAll("|", "\\|")).join(" | ")} |`;
  const rule = rows[0].map((_, column) => (column === 0 ? "---" : "---:"));
  return [line(rows[0]), `| ${rule.join(" | ")} |`, ...rows.slice(1).map(line)];
}

export function formatTable(report: AbReport): string {
  const { head, ratios, arms, tail } = sectionsOf(report);
  return `${[...head, "", ...aligned(ratios), "", ...aligned(arms), "", ...tail].join("\n")}\n`;
}

export function formatMarkdown(report: AbReport): string {
  const { head, ratios, arms, tail } = sectionsOf(report);
  const lines = tail.map((line) => `- ${line.trim()}`);
  return `${[...head.map((line) => `${line}  `), "", ...markdownTable(ratios), "", ...markdownTable(arms), "", ...lines].join("\n")}\n`;
}

const COLUMNS = [
  "id",
  "category",
  "repeat",
  "arm",
  "first",
  "error",
  "seed",
  "arm_header",
  "finish_reason",
  "clock",
  "prompt_n",
  "prompt_ms",
  "cache_n",
  "predicted_n",
  "decode_ms",
  "draft_n",
  "draft_n_accepted",
  "ttft_ms",
  "tpot_ms",
  "e2e_ms",
] as const satisfies readonly (keyof AbSample)[];

/** One line per request, without texts; empty: not measured (RFC 4180). */
export function formatCsv(report: AbReport): string {
  const cell = (value: string | number | boolean | null): string => {
    const text = value === null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = report.samples.map((sample) => COLUMNS.map((column) => cell(sample[column])).join(","));
  return `${[COLUMNS.join(","), ...rows].join("\r\n")}\r\n`;
}

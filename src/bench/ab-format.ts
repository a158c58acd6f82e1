/** An A/B report as a table for the terminal, as Markdown, and its samples as CSV. */

import { blockSize } from "./ab.ts";
import type { AbReport, ArmReport } from "./ab-report.ts";
import type { AbSample } from "./ab-sample.ts";
import type { RatioReport } from "./ratio.ts";
import type { Quantiles } from "./statistics.ts";

const SHOWN_DIFFERENCES = 5;

export type Row = readonly string[];

/** The report in words and rows; each table's first row is its head. */
export interface Sections {
  head: string[];
  ratios: Row[];
  arms: Row[];
  /** Acceptance by depth, by source; empty where the server tells nothing. */
  depths: Row[];
  sources: Row[];
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
    ["", "on", "off"],
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
    ...(on.ttfr_ms === null && off.ttfr_ms === null
      ? []
      : [
          times("first reasoning text ms", (arm) => arm.ttfr_ms),
          times("first answer text ms", (arm) => arm.ttfa_ms),
        ]),
    times("ITL per token ms", (arm) => arm.itl_ms),
    times("ITL per chunk ms", (arm) => arm.itl_chunk_ms),
    times("TPOT ms", (arm) => arm.tpot_ms),
    times("E2E ms", (arm) => arm.e2e_ms),
    row("requests/s, tokens/s", (arm) => {
      const { requests_per_s, tokens_per_s } = arm.throughput;
      return `${fixed(requests_per_s, 2)}, ${fixed(tokens_per_s, 1)}`;
    }),
    ...(on.goodput === null && off.goodput === null
      ? []
      : [row("goodput, requests/s (share)", ({ goodput }) => goodputCell(goodput))]),
  ];
}

function goodputCell(goodput: ArmReport["goodput"]): string {
  if (goodput === null) return "N/A";
  return `${fixed(goodput.requests_per_s, 2)} (${(goodput.share * 100).toFixed(0)} %)`;
}

function share(part: number, whole: number): string {
  return whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : "N/A";
}

function depthRows({ drafts }: AbReport): Row[] {
  if (drafts === null || drafts.by_depth.drafted.length === 0) return [];
  const { drafted, accepted } = drafts.by_depth;
  return [
    ["depth", "drafted", "accepted", "of the nodes", "of the steps"],
    ...drafted.map((n, i) => [
      String(i + 1),
      String(n),
      String(accepted[i] ?? 0),
      share(accepted[i] ?? 0, n),
      share(accepted[i] ?? 0, drafts.steps),
    ]),
  ];
}

function sourceRows({ drafts }: AbReport): Row[] {
  if (drafts === null || drafts.by_depth.drafted.length === 0) return [];
  return [
    ["source", "drafted", "accepted", "of the nodes"],
    ...Object.entries(drafts.by_source).map(([name, { drafted, accepted }]) => [
      name,
      String(drafted),
      String(accepted),
      share(accepted, drafted),
    ]),
  ];
}

/** How the requests came. */
function loadOf({ options }: AbReport): string {
  const { rate, concurrency } = options;
  const load = rate === undefined ? `${concurrency} at once` : `${rate} requests/s (Poisson)`;
  const size = blockSize(options);
  return size === 1 ? load : `${load}, blocks of ${size}`;
}

function armLines({ options, environment }: AbReport): string[] {
  const { arms } = options;
  if (arms === undefined && environment.against === undefined) return [];
  const line = (name: "on" | "off"): string => {
    const url = name === "off" ? (environment.against?.url ?? environment.url) : environment.url;
    const model = arms?.[name].model;
    return `${name}: x-aded ${arms?.[name].drafts ?? name}, ${url}${model === undefined ? "" : `, ${model}`}`;
  };
  return [line("on"), line("off")];
}

/** The drafter's share of a step. */
function draftLine({ drafts }: AbReport): string[] {
  if (drafts === null || drafts.draft_us.p50 === null) return [];
  const us = (value: number | null): string => (value === null ? "N/A" : `${value.toFixed(0)} µs`);
  const { draft_us, link_us } = drafts;
  return [
    `Drafting took ${us(draft_us.p50)} a step (p99 ${us(draft_us.p99)}), of it the link ${us(link_us.p50)} (p99 ${us(link_us.p99)}); ` +
      `${drafts.late} drafts came too late.`,
  ];
}

function stopLine({ sequential, n }: AbReport): string[] {
  if (sequential === null) return [];
  const ended = sequential.stopped_early ? `stopped early after ${n} pairs` : "ran to its end";
  return [
    `It could stop after ${sequential.looks.join(", ")} pairs and ${ended}; every interval has the level ` +
      `${(sequential.level * 100).toFixed(1)} %, so that stopping early costs no coverage.`,
  ];
}

export function sectionsOf(report: AbReport): Sections {
  const { environment, options } = report;
  const { engine } = environment;
  const tail = [report.noise.text, ...stopLine(report), ...draftLine(report)];
  tail.push(`Same text: ${report.same_text} of ${report.n} pairs.`);
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
        `${loadOf(report)}, seed ${options.seed}${report.complete ? "" : " (NOT COMPLETE)"}`,
      ...armLines(report),
    ],
    ratios: [
      ["decode time, off / on", "ratio", `${+(report.level * 100).toFixed(1)} % interval`, "pairs"],
      ratioRow("overall", report.overall),
      ratioRow("median of the pairs", report.overall.median),
      ...Object.entries(report.categories).map(([name, ratio]) => ratioRow(`  ${name}`, ratio)),
      ratioRow("whole request (E2E)", report.overall.e2e),
      ratioRow("first token (TTFT)", report.overall.ttft),
    ],
    arms: armRows(report.arms),
    depths: depthRows(report),
    sources: sourceRows(report),
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
  const { head, ratios, arms, depths, sources, tail } = sectionsOf(report);
  const tables = [ratios, arms, depths, sources].filter((rows) => rows.length > 0);
  return `${[...head, "", ...tables.flatMap((rows) => [...aligned(rows), ""]), ...tail].join("\n")}\n`;
}

export function formatMarkdown(report: AbReport): string {
  const { head, ratios, arms, depths, sources, tail } = sectionsOf(report);
  const tables = [ratios, arms, depths, sources].filter((rows) => rows.length > 0);
  const lines = tail.map((line) => `- ${line.trim()}`);
  const parts = [head.map((line) => `${line}  `), ...tables.map(markdownTable), lines];
  return `${parts.map((part) => part.join("\n")).join("\n\n")}\n`;
}

const COLUMNS = [
  "id",
  "category",
  "repeat",
  "arm",
  "first",
  "at_ms",
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
  "ttfr_ms",
  "ttfa_ms",
  "tpot_ms",
  "e2e_ms",
] as const satisfies readonly (keyof AbSample)[];

/** One line per request, without texts; empty: not measured (RFC 4180). */
export function formatCsv(report: AbReport): string {
  const cell = (value: string | number | boolean | null | undefined): string => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = report.samples.map((sample) => COLUMNS.map((column) => cell(sample[column])).join(","));
  return `${[COLUMNS.join(","), ...rows].join("\r\n")}\r\n`;
}

/** A draft report for the terminal, and as Markdown. */
import { aligned } from "./ab-format.ts";
import type { ByNodes, DraftReport } from "./draft-report.ts";

type Row = readonly string[];

/** Share of rejected nodes without knowledge past which a reader must be told. */
const MUCH_MISSING = 0.05;

interface Section {
  title: string;
  rows: Row[];
}

export function formatDraft(report: DraftReport): string {
  const parts = sectionsOf(report).map(({ title, rows }) => `${title}\n${aligned(rows).join("\n")}`);
  return `${[headOf(report), ...parts, ...notesOf(report)].join("\n\n")}\n`;
}

export function formatDraftMarkdown(report: DraftReport): string {
  const parts = sectionsOf(report).map(({ title, rows }) => {
    const [head, ...body] = rows;
    return [`${title}:`, "", line(head), line(head.map(() => "---")), ...body.map(line)].join("\n");
  });
  return `${[headOf(report), ...parts, ...notesOf(report)].join("\n\n")}\n`;
}

function line(cells: Row): string {
  return `| ${cells.join(" | ")} |`;
}

function headOf({ traces, seed, environment }: DraftReport): string {
  const temperatures = traces.temperatures.map((t) => (t === 0 ? "greedy" : `temperature ${t}`)).join(", ");
  return (
    `${traces.texts} texts (${temperatures}), ${traces.tokens} tokens, ${traces.off_path_nodes} nodes known beside them, ` +
    `in random order (seed ${seed}), cold start; ${environment.cpu}, Node ${environment.node}, load ${environment.load}`
  );
}

function sectionsOf(report: DraftReport): Section[] {
  const budgets = Object.keys(report.tokens_per_step);
  const peers = Object.entries(report.peers);
  const sections: Section[] = [
    {
      title: "Tokens per step by nodes (95 % interval over texts)",
      rows: [
        ["rule", ...budgets],
        ["aded", ...budgets.map((n) => withInterval(report.tokens_per_step[n], report.ci[n]))],
        ...peers.map(([name, peer]) => [
          name,
          ...budgets.map((n) => withInterval(peer.tokens_per_step[n], peer.ci[n])),
        ]),
      ],
    },
  ];
  if (peers.length > 0) {
    sections.push(
      {
        title: "Tokens per step of aded over those of the rule (95 % interval, paired by text)",
        rows: [
          ["rule", ...budgets],
          ...peers.map(([name, peer]) => [
            name,
            ...budgets.map((n) => withInterval(peer.ratio[n]?.ratio, peer.ratio[n]?.ci, 2)),
          ]),
        ],
      },
      {
        title: "Rejected nodes of which the traces know what the model said, %",
        rows: [
          ["rule", ...budgets],
          ["aded", ...budgets.map((n) => percent(report.known[n]))],
          ...peers.map(([name, { known }]) => [name, ...budgets.map((n) => percent(known[n]))]),
        ],
      },
    );
  }
  const ablations = Object.entries(report.ablations);
  if (ablations.length > 0) {
    sections.push({
      title: "Ablations, tokens per step",
      rows: [
        ["aded", ...budgets],
        ["as it is", ...budgets.map((n) => fixed(report.tokens_per_step[n], 3))],
        ...ablations.map(([name, cells]) => [name, ...budgets.map((n) => fixed(cells[n], 3))]),
      ],
    });
  }
  sections.push(
    {
      title: "Time and memory of aded",
      rows: [
        ["", ...budgets],
        ["draft, µs p50 / p99", ...budgets.map((n) => times(report.us[n].draft))],
        ["observe, µs p50 / p99", ...budgets.map((n) => times(report.us[n].observe))],
        ["matrices, MiB", ...budgets.map((n) => fixed(report.memory[n] / 2 ** 20, 1))],
      ],
    },
    {
      title: "Tokens per step by category",
      rows: [
        ["category", ...budgets],
        ...Object.entries(report.categories).map(([name, cells]) => [
          name || "(none)",
          ...budgets.map((n) => fixed(cells[n], 2)),
        ]),
      ],
    },
  );
  return sections;
}

function notesOf(report: DraftReport): string[] {
  const notes: string[] = [];
  const variants = Object.entries(report.peers).flatMap(([name, { variant }]) =>
    variant === undefined ? [] : [`${name}: ${listed(variant)}`],
  );
  if (variants.length > 0) notes.push(`Best variant at each budget: ${variants.join("; ")}.`);
  const shares = [report.known, ...Object.values(report.peers).map(({ known }) => known)].flatMap((known) =>
    Object.values(known),
  );
  const least = Math.min(...shares.map((share) => share ?? 1));
  if (least < 1 - MUCH_MISSING) {
    notes.push(
      `Of some rule's rejected nodes the traces know only ${percent(least)} %: rules that learn from them (aded, Token Recycling, SAM[TR], RACER) do ` +
        "better in service than here. aded bench draft --complete fills traces up.",
    );
  }
  return notes;
}

function listed(cells: ByNodes<string>): string {
  return Object.entries(cells)
    .map(([nodes, label]) => `${nodes} ${label}`)
    .join(", ");
}

function withInterval(
  value: number | undefined,
  ci: [number, number] | null | undefined,
  digits = 2,
): string {
  if (value === undefined) return "N/A";
  const bounds = ci ? ` (${fixed(ci[0], digits)} – ${fixed(ci[1], digits)})` : "";
  return fixed(value, digits) + bounds;
}

function times({ p50, p99 }: { p50: number; p99: number }): string {
  return `${fixed(p50, 0)} / ${fixed(p99, 0)}`;
}

function percent(share: number | null): string {
  return share === null ? "–" : fixed(share * 100, 0);
}

function fixed(value: number | undefined, digits: number): string {
  return value === undefined || !Number.isFinite(value) ? "N/A" : value.toFixed(digits);
}

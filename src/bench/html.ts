/** HTML from text: escaping, tables, and intervals as a picture. */
import type { Row } from "./ab-format.ts";

export function escapeHtml(text: string): string {
  const names: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => names[character]);
}

/** A table whose first row is its head and whose first column names the rows. */
export function table(caption: string, rows: readonly Row[]): string {
  if (rows.length === 0) return "";
  const head = rows[0]
    .map((cell) => `<th scope="col">${cell === "" ? "figure" : escapeHtml(cell)}</th>`)
    .join("");
  const body = rows.slice(1).map(([name, ...cells]) => {
    const rest = cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("");
    return `<tr><th scope="row">${escapeHtml(name.trim())}</th>${rest}</tr>`;
  });
  return (
    `<div class="scroll" tabindex="0" role="group" aria-label="${escapeHtml(caption)}"><table><thead><tr>${head}</tr></thead>` +
    `<tbody>${body.join("")}</tbody></table></div>`
  );
}

export interface ForestRow {
  name: string;
  ratio: number | null;
  ci: readonly [number, number] | null;
}

const WIDTH = 640;
const LABEL = 190;
const RIGHT = 20;
const LINE = 30;

/** Ratios with their intervals, one line each, and a line at 1. An SVG that takes its colours from the page. */
export function forest(label: string, rows: readonly ForestRow[]): string {
  const values = rows.flatMap(({ ratio, ci }) => [ratio, ...(ci ?? [])]).filter((value) => value !== null);
  const low = Math.min(0.9, ...values) - 0.05;
  const high = Math.max(1.1, ...values) + 0.05;
  const at = (value: number): string =>
    (LABEL + ((value - low) / (high - low)) * (WIDTH - LABEL - RIGHT)).toFixed(1);
  const height = rows.length * LINE + 40;
  const parts: string[] = [];
  for (const tick of ticks(low, high)) {
    parts.push(
      `<line class="tick" x1="${at(tick)}" x2="${at(tick)}" y1="8" y2="${height - 26}"/>`,
      `<text x="${at(tick)}" y="${height - 8}" text-anchor="middle">${tick}</text>`,
    );
  }
  parts.push(`<line class="one" x1="${at(1)}" x2="${at(1)}" y1="4" y2="${height - 26}"/>`);
  for (const [i, { name, ratio, ci }] of rows.entries()) {
    const y = i * LINE + 24;
    parts.push(
      `<text x="4" y="${y + 4}">${escapeHtml(name.length > 26 ? `${name.slice(0, 25)}…` : name)}</text>`,
    );
    if (ratio === null) continue;
    if (ci !== null)
      parts.push(`<line class="bar" x1="${at(ci[0])}" x2="${at(ci[1])}" y1="${y}" y2="${y}"/>`);
    parts.push(`<circle class="dot" cx="${at(ratio)}" cy="${y}" r="5"/>`);
  }
  return `<svg class="forest" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeHtml(label)}">${parts.join("")}</svg>`;
}

function ticks(low: number, high: number): number[] {
  const rough = (high - low) / 6;
  const step = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10].find((candidate) => candidate >= rough) ?? 20;
  const out: number[] = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step)
    out.push(Number(value.toFixed(2)));
  return out;
}

/** Tokens per step over node budgets, one curve per rule, as an SVG that stands alone. */
import type { ByNodes, DraftReport } from "./draft-report.ts";

const WIDTH = 760;
const HEIGHT = 440;
const LEFT = 48;
const RIGHT = 170;
const TOP = 28;
const BOTTOM = 44;
/** Told apart by people who see no red or no green (Okabe and Ito, 2008). */
const COLOURS = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"];
const LABEL_HEIGHT = 14;

export function plotDraft(report: DraftReport): string {
  const curves = [
    { name: "aded", cells: report.tokens_per_step },
    ...Object.entries(report.peers).map(([name, { tokens_per_step: cells }]) => ({ name, cells })),
  ];
  const budgets = Object.keys(report.tokens_per_step).map(Number);
  const most = Math.max(...curves.flatMap(({ cells }) => Object.values(cells)));
  const top = Math.ceil(most * 4) / 4;
  const x = (nodes: number): number => {
    const first = Math.log2(budgets[0] + 1);
    const span = Math.log2(budgets[budgets.length - 1] + 1) - first || 1;
    return LEFT + ((Math.log2(nodes + 1) - first) / span) * (WIDTH - LEFT - RIGHT);
  };
  const y = (value: number): number =>
    HEIGHT - BOTTOM - ((value - 1) / (top - 1 || 1)) * (HEIGHT - TOP - BOTTOM);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    `<text x="${LEFT}" y="18">tokens per step, ${report.traces.texts} texts, cold start</text>`,
  ];
  for (let value = 1; value <= top; value += 0.5) {
    parts.push(
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${n(y(value))}" y2="${n(y(value))}" stroke="#ddd"/>`,
      `<text x="${LEFT - 8}" y="${n(y(value) + 4)}" text-anchor="end">${value.toFixed(1)}</text>`,
    );
  }
  for (const nodes of budgets) {
    parts.push(`<text x="${n(x(nodes))}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${nodes}</text>`);
  }
  parts.push(
    `<text x="${n((LEFT + WIDTH - RIGHT) / 2)}" y="${HEIGHT - 8}" text-anchor="middle">draft nodes per step</text>`,
  );
  const labels = placed(curves.map(({ cells }) => y(lastOf(cells))));
  for (const [i, { name, cells }] of curves.entries()) {
    const colour = COLOURS[i % COLOURS.length];
    const points = Object.entries(cells).map(([nodes, value]) => ({
      x: n(x(Number(nodes))),
      y: n(y(value)),
    }));
    parts.push(
      `<polyline fill="none" stroke="${colour}" stroke-width="${i === 0 ? 3 : 1.5}" points="${points.map((p) => `${p.x},${p.y}`).join(" ")}"/>`,
      ...points.map((p) => `<circle cx="${p.x}" cy="${p.y}" r="3" fill="${colour}"/>`),
      `<text x="${WIDTH - RIGHT + 10}" y="${n(labels[i] + 4)}" fill="${colour}">${name} ${lastOf(cells).toFixed(2)}</text>`,
    );
  }
  return `${parts.join("\n")}\n</svg>\n`;
}

function lastOf(cells: ByNodes<number>): number {
  const values = Object.values(cells);
  return values[values.length - 1];
}

/** Heights of labels, moved down where they would cover each other. */
function placed(wanted: readonly number[]): number[] {
  const order = wanted.map((height, i) => ({ height, i })).sort((a, b) => a.height - b.height);
  const heights: number[] = [];
  let free = Number.NEGATIVE_INFINITY;
  for (const { height, i } of order) {
    heights[i] = Math.max(height, free);
    free = heights[i] + LABEL_HEIGHT;
  }
  return heights;
}

function n(value: number): string {
  return value.toFixed(1);
}

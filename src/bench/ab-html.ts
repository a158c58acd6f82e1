/** An A/B report as one HTML file that needs nothing else: tables, and plots drawn by the script inside. */
import { pageScript, pageStyle, sourceHash } from "../dashboard/bundle.ts";
import { sectionsOf } from "./ab-format.ts";
import { type AbReport, tokenGaps } from "./ab-report.ts";
import type { AbSample } from "./ab-sample.ts";
import type { Arm } from "./chat-client.ts";
import { modelTitle } from "./environment.ts";
import { escapeHtml, forest, table } from "./html.ts";
import { ecdf } from "./statistics.ts";

interface Points {
  x: number[];
  y: number[];
}

export async function formatHtml(report: AbReport): Promise<string> {
  const script = await pageScript("report");
  const style = pageStyle();
  const title = modelTitle(report.environment.engine) ?? "a model";
  const { head, ratios, arms, depths, sources, tail } = sectionsOf(report);
  const policy = `default-src 'none'; script-src ${sourceHash(script)}; style-src 'unsafe-inline'; img-src data:`;
  const rows = [
    { name: "overall", ...report.overall },
    { name: "median of the pairs", ...report.overall.median },
    ...Object.entries(report.categories).map(([name, ratio]) => ({ name, ...ratio })),
    { name: "whole request (E2E)", ...report.overall.e2e },
    { name: "first token (TTFT)", ...report.overall.ttft },
  ];
  const data = JSON.stringify(plotData(report)).replaceAll("<", "\\u003c");
  const figure = (id: string, title: string): string =>
    `<section><h2>${title}</h2><div id="${id}" role="img" aria-label="${title}; the tables hold the figures"></div></section>`;
  const { verdict } = report.noise;
  const mark = verdict === "faster" ? "good" : verdict === "slower" ? "bad" : "soft";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>A/B: ${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>A/B of ${escapeHtml(title)}</h1>
${head.map((line) => `<p class="soft">${escapeHtml(line)}</p>`).join("\n")}
<p class="soft">${escapeHtml(report.environment.date)} · <code>${escapeHtml(report.environment.command)}</code></p>
</header>
<main>
<section>
<h2>Decode time, off / on</h2>
<p><span class="big">${report.overall.ratio === null ? "N/A" : report.overall.ratio.toFixed(3)}</span>
<span class="${mark}">${escapeHtml(verdict)}</span></p>
<div class="grid"><div class="scroll" tabindex="0" role="group" aria-label="Ratios as a picture">${forest("Ratio of decode times by category, with intervals", rows)}</div>
<div>${table("Ratios", ratios)}</div></div>
${tail.map((line) => `<p>${escapeHtml(line.trim())}</p>`).join("\n")}
</section>
<section><h2>Both arms</h2>${table("Both arms", arms)}</section>
<div class="grid">
${figure("itl", "Time between tokens")}
${report.options.stream === false ? "" : figure("ttft", "Time to first text")}
${depths.length === 0 ? "" : figure("depth", "Acceptance by depth")}
${figure("time", "Speed over time")}
</div>
${depths.length === 0 ? "" : `<div class="grid"><section><h2>By depth</h2>${table("Acceptance by depth", depths)}</section><section><h2>By source</h2>${table("Acceptance by source", sources)}</section></div>`}
</main>
<script type="application/json" id="data">${data}</script>
<script>${script}</script>
</body>
</html>
`;
}

function plotData(report: AbReport): object {
  const answered = report.samples.filter((sample) => sample.error === null);
  const both = <T>(of: (samples: AbSample[]) => T): Record<Arm, T> => ({
    on: of(answered.filter((sample) => sample.arm === "on")),
    off: of(answered.filter((sample) => sample.arm === "off")),
  });
  const curve = (values: readonly number[]): Points => {
    const { value, share } = ecdf(values);
    return { x: value, y: share };
  };
  return {
    itl: both((samples) => curve(samples.flatMap(tokenGaps))),
    ttft: both((samples) => curve(samples.flatMap(({ ttft_ms }) => ttft_ms ?? []))),
    depth: depthData(report),
    time: both(speeds),
  };
}

function depthData({ drafts }: AbReport): { steps: Points; nodes: Points } | null {
  if (drafts === null || drafts.steps === 0) return null;
  const { drafted, accepted } = drafts.by_depth;
  const x = drafted.map((_, i) => i + 1);
  return {
    steps: { x, y: x.map((_, i) => (accepted[i] ?? 0) / drafts.steps) },
    nodes: { x, y: x.map((_, i) => (drafted[i] > 0 ? (accepted[i] ?? 0) / drafted[i] : 0)) },
  };
}

/** Tokens per second of each answer, by the time when it was asked for. */
function speeds(samples: readonly AbSample[]): Points {
  const points = samples
    .flatMap(({ at_ms, decode_ms, predicted_n }) =>
      at_ms === undefined || decode_ms === null || decode_ms <= 0
        ? []
        : [{ x: at_ms / 1000, y: ((predicted_n - 1) / decode_ms) * 1000 }],
    )
    .sort((a, b) => a.x - b.x);
  return { x: points.map(({ x }) => x), y: points.map(({ y }) => y) };
}

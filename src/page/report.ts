/** The plots of an A/B report; the data lie in the page (src/bench/ab-html.ts). */
import { type Curve, plot } from "./plots.ts";

interface Points {
  x: number[];
  y: number[];
}

interface ReportData {
  itl: { on: Points; off: Points };
  ttft: { on: Points; off: Points };
  /** Share of the steps that accepted that deep, and of the nodes drafted there. */
  depth: { steps: Points; nodes: Points } | null;
  time: { on: Points; off: Points };
}

const data = JSON.parse(document.getElementById("data")?.textContent ?? "null") as ReportData;

function arms(of: { on: Points; off: Points }, kind: Curve["kind"]): Curve[] {
  return [
    { label: "on", color: "--on", ...of.on, kind },
    { label: "off", color: "--off", ...of.off, kind, dash: true },
  ];
}

function draw(id: string, x: string, y: string, curves: Curve[], range?: [number, number]): void {
  const host = document.getElementById(id);
  if (host !== null && curves.some((curve) => curve.x.length > 0)) plot(host, { x, y, curves, range });
}

/** The slowest hundredth would press everything else against the axis. */
function without(points: Points): Points {
  const last = points.y.findIndex((share) => share > 0.99);
  return last < 1 ? points : { x: points.x.slice(0, last), y: points.y.slice(0, last) };
}

draw(
  "itl",
  "ms between tokens",
  "share of tokens",
  arms({ on: without(data.itl.on), off: without(data.itl.off) }, "step"),
  [0, 1],
);
draw("ttft", "ms to the first text", "share of requests", arms(data.ttft, "step"), [0, 1]);
draw("time", "seconds since the start", "tokens per second", arms(data.time, "points"));
if (data.depth !== null) {
  draw(
    "depth",
    "depth in the draft tree",
    "share accepted",
    [
      { label: "of the steps", color: "--on", ...data.depth.steps },
      { label: "of the nodes drafted there", color: "--off", ...data.depth.nodes, dash: true },
    ],
    [0, 1],
  );
}

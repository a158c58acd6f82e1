/** Plots in the page's own colours: redrawn when light turns to dark, resized with their box. */
import uPlot from "uplot";

export interface Curve {
  label: string;
  /** CSS variable that holds the colour. */
  color: string;
  x: readonly number[];
  y: readonly (number | null)[];
  /** @default "line" */
  kind?: "line" | "step" | "points";
  dash?: boolean;
}

export interface PlotOptions {
  x: string;
  y: string;
  curves: readonly Curve[];
  /** Bounds of the y axis. @default by the data */
  range?: [low: number, high: number];
  xRange?: [low: number, high: number];
  /** @default 260 */
  height?: number;
  format?: (value: number) => string;
}

export interface Plot {
  update(curves: readonly Curve[]): void;
}

const stepped = uPlot.paths.stepped?.({ align: 1 });

function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** One x axis for all curves; where a curve has no value there, null. */
function joined(curves: readonly Curve[]): uPlot.AlignedData {
  const tables = curves.map(({ x, y }) => [Array.from(x), Array.from(y)] as uPlot.AlignedData);
  if (tables.length === 0) return [[]];
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

/** Draws into `host`, which stays as wide as its container lets it be. */
export function plot(host: HTMLElement, options: PlotOptions): Plot {
  let curves = options.curves;
  let drawn: uPlot | undefined;
  const width = (): number => Math.max(200, Math.floor(host.clientWidth));
  const draw = (): void => {
    drawn?.destroy();
    const text = css("--text");
    const grid = { stroke: css("--line"), width: 1 };
    const axis = { stroke: text, grid, ticks: grid, font: "12px system-ui", labelFont: "12px system-ui" };
    const shown = (_: uPlot, value: number | null): string =>
      value === null || value === undefined ? "–" : (options.format ?? number)(value);
    drawn = new uPlot(
      {
        width: width(),
        height: options.height ?? 260,
        scales: {
          x: { time: false, ...(options.xRange === undefined ? {} : { range: options.xRange }) },
          y: options.range === undefined ? {} : { range: options.range },
        },
        axes: [
          { ...axis, label: options.x, labelSize: 18 },
          { ...axis, label: options.y, labelSize: 18, size: 52 },
        ],
        series: [
          { label: options.x, value: shown },
          ...curves.map(({ label, color, kind = "line", dash }): uPlot.Series => {
            const stroke = css(color);
            return {
              label,
              stroke,
              width: 2,
              value: shown,
              spanGaps: kind !== "points",
              dash: dash ? [6, 4] : undefined,
              ...(kind === "points"
                ? { paths: () => null, points: { show: true, size: 6, fill: stroke } }
                : { points: { show: false } }),
              ...(kind === "step" && stepped !== undefined ? { paths: stepped } : {}),
            };
          }),
        ],
      },
      joined(curves),
      host,
    );
  };
  draw();
  new ResizeObserver(() => drawn?.setSize({ width: width(), height: options.height ?? 260 })).observe(host);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return {
    update(next) {
      const alike = next.length === curves.length && next.every(({ label }, i) => label === curves[i].label);
      curves = next;
      if (alike) drawn?.setData(joined(curves));
      else draw();
    },
  };
}

function number(value: number): string {
  return Number(value.toPrecision(4)).toString();
}

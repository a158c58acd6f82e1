/**
 * What corpora do to drafts: replays recorded texts (docs/drafter.md) with each corpus, at 15 nodes, and draws tokens per step against top-k and
 * against the corpus' size. "cold": each text by a drafter that has learnt nothing; "session": all texts by one drafter that starts empty.
 *
 *     npx tsx scripts/corpus-effect.ts TRACES.jsonl [--top-k 1,2,4,8,12,16] [--svg F.svg] CORPUS.parquet…
 *
 * Corpora joined by "," are read together; FILE@W weighs one. The corpus named last is the one that is pruned for the plot of top-k.
 */
import { writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { FloorTable } from "../src/corpus/floor.ts";
import { type LoadedFloor, loadFloor } from "../src/corpus/floor-source.ts";
import { AdedDrafter } from "../src/drafter/drafter.ts";
import { replay, replayEngine, shuffled } from "../src/simulator/replay.ts";
import type { Trace } from "../src/simulator/trace.ts";
import { readTraces } from "../src/simulator/trace-file.ts";

const NODES = 15;
const BOUND = 128 * 2 ** 20;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { "top-k": { type: "string", default: "1,2,4,8,12,16" }, svg: { type: "string" } },
});
const [file, ...corpora] = positionals;
if (file === undefined || corpora.length === 0) {
  console.error(
    "usage: npx tsx scripts/corpus-effect.ts TRACES.jsonl [--top-k K,…] [--svg F.svg] CORPUS.parquet…",
  );
  process.exit(2);
}
const { traces, nVocab } = await readTraces(file);
const info = replayEngine(traces, NODES, { nVocab: nVocab ?? 2 ** 18 });
const kinds: [string, Trace[]][] = [
  ["HumanEval", traces.filter(({ id }) => id.startsWith("HumanEval"))],
  ["others", traces.filter(({ id }) => !id.startsWith("HumanEval"))],
];

interface Effect {
  rows: number;
  /** Tokens per step by kind. */
  cold: number[];
  session: number[];
}

function effectOf(floor: LoadedFloor | undefined): Effect {
  const drafter = (): AdedDrafter => {
    const made = new AdedDrafter(info, { fixedNodes: NODES });
    if (floor !== undefined) made.useFloor(new FloorTable(floor.buffer));
    return made;
  };
  const cold = kinds.map(([, own]) => {
    const runs = own.map((trace) => replay(drafter(), [trace]));
    return runs.reduce((sum, run) => sum + run.tokens, 0) / runs.reduce((sum, run) => sum + run.steps, 0);
  });
  const session = kinds.map(([, own]) => replay(drafter(), shuffled(own, 1)).tokensPerStep);
  return { rows: floor?.rows ?? 0, cold, session };
}

function load(names: string, topK: number): Promise<LoadedFloor> {
  const list = names.split(",").map((name) => {
    const [at, weight = "1"] = name.split("@");
    return { file: at, weight: Number(weight) };
  });
  return loadFloor({ corpora: list, topK, bound: BOUND });
}

function print(name: string, { rows, cold, session }: Effect): void {
  const figures = kinds.map(
    ([kind], i) => `${kind}: cold ${cold[i].toFixed(2)}, session ${session[i].toFixed(2)}`,
  );
  console.log(`${name} | ${rows} rows | ${figures.join(" | ")}`);
}

const none = effectOf(undefined);
print("no corpus", none);
const bySize: Effect[] = [none];
for (const names of corpora) {
  const effect = effectOf(await load(names, 12));
  print(
    names
      .split(",")
      .map((name) => path.basename(name))
      .join(" + "),
    effect,
  );
  bySize.push(effect);
}
const byTopK: [number, Effect][] = [];
for (const topK of values["top-k"].split(",").map(Number)) {
  const effect = effectOf(await load(corpora[corpora.length - 1], topK));
  print(`top-${topK}`, effect);
  byTopK.push([topK, effect]);
}
if (values.svg !== undefined) writeFileSync(values.svg, plot());

/** Two panels side by side; solid: cold, dashed: session. */
function plot(): string {
  const all = [...bySize, ...byTopK.map(([, effect]) => effect)].flatMap(({ cold, session }) => [
    ...cold,
    ...session,
  ]);
  const low = Math.floor(Math.min(...all) * 5) / 5;
  const high = Math.ceil(Math.max(...all) * 5) / 5;
  const panels = [
    panel(
      60,
      "successors kept per row (top-k)",
      byTopK.map(([topK, effect]) => [String(topK), effect]),
      low,
      high,
    ),
    panel(
      430,
      "rows of the corpus, thousands",
      bySize.map((effect) => [String(Math.round(effect.rows / 1000)), effect]),
      low,
      high,
    ),
  ];
  const key = [...kinds.map(([kind]) => `${kind}, cold`), ...kinds.map(([kind]) => `${kind}, session`)].map(
    (text, i) =>
      `<path d="M${70 + i * 180} 292h24" ${stroke(i % 2, i > 1)}/><text x="${100 + i * 180}" y="296">${text}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 790 310" font-family="sans-serif" font-size="12">
<rect width="790" height="310" fill="#fff"/>
${[...panels, ...key].join("\n")}
</svg>
`;
}

function stroke(kind: number, dashed: boolean): string {
  return `fill="none" stroke="${["#0b62a8", "#b3470b"][kind]}" stroke-width="2"${dashed ? ' stroke-dasharray="5 4"' : ""}`;
}

function panel(x: number, title: string, points: [string, Effect][], low: number, high: number): string {
  const width = 310;
  const right = (i: number): number => x + (points.length < 2 ? 0 : (i * width) / (points.length - 1));
  const up = (value: number): number => 230 - ((value - low) / (high - low)) * 190;
  const parts = [`<text x="${x}" y="22">tokens per step, ${NODES} nodes</text>`];
  for (let value = low; value <= high + 1e-9; value += 0.2) {
    const y = up(value).toFixed(1);
    parts.push(`<path d="M${x} ${y}h${width}" stroke="#ddd"/>`);
    parts.push(`<text x="${x - 6}" y="${y}" dy="4" text-anchor="end">${value.toFixed(1)}</text>`);
  }
  for (const [i, [label]] of points.entries()) {
    parts.push(`<text x="${right(i)}" y="248" text-anchor="middle">${label}</text>`);
  }
  parts.push(`<text x="${x + width / 2}" y="268" text-anchor="middle">${title}</text>`);
  for (const dashed of [false, true]) {
    for (const kind of kinds.keys()) {
      const line = points.map(([, effect], i) => {
        const value = (dashed ? effect.session : effect.cold)[kind];
        return `${right(i).toFixed(1)} ${up(value).toFixed(1)}`;
      });
      parts.push(`<path d="M${line.join("L")}" ${stroke(kind, dashed)}/>`);
    }
  }
  return parts.join("\n");
}

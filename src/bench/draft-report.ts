/** A draft run as the JSON that others read (DESIGN: us_per_draft, tokens_per_step, ablations), with intervals over texts and ratios to the peers. */
import { arch, availableParallelism, cpus, loadavg } from "node:os";
import { quantile as replayQuantile } from "../simulator/replay.ts";
import type { Trace } from "../simulator/trace.ts";
import type { DraftBenchOptions, DraftCell, DraftRow, DraftRun } from "./draft.ts";
import { bootstrapRatio, type Interval, type RatioUnit } from "./statistics.ts";

/** By node budget: "7", "15", … */
export type ByNodes<T> = Record<string, T>;

export interface PeerReport {
  tokens_per_step: ByNodes<number>;
  ci: ByNodes<[number, number] | null>;
  /** Which variant did best; left out for rules with a single one. */
  variant?: ByNodes<string>;
  /** Share of the rejected nodes of which the traces know what the model said. */
  known: ByNodes<number | null>;
  /** Tokens per step of this drafter over those of the peer, and its interval (paired by text). */
  ratio: ByNodes<{ ratio: number; ci: [number, number] | null }>;
}

export interface DraftReport {
  /** µs of one draft at `us_nodes` nodes. */
  us_per_draft: { p50: number | null; p99: number | null };
  us_nodes: number;
  tokens_per_step: ByNodes<number>;
  ci: ByNodes<[number, number] | null>;
  known: ByNodes<number | null>;
  us: ByNodes<{ draft: { p50: number; p99: number }; observe: { p50: number; p99: number } }>;
  /** Memory of the matrices after the replay, bytes. */
  memory: ByNodes<number>;
  ablations: Record<string, ByNodes<number>>;
  peers: Record<string, PeerReport>;
  /** By category of the texts, at each node budget. */
  categories: Record<string, ByNodes<number>>;
  traces: {
    files: string[];
    texts: number;
    tokens: number;
    steps: ByNodes<number>;
    off_path_nodes: number;
    temperatures: number[];
  };
  top_k: number;
  seed: number;
  environment: { date: string; command: string; cpu: string; cores: number; load: number; node: string };
}

/** A draft of about 16 nodes is what the product's promise on time is about. */
const TIMED_NODES = 16;
const RESAMPLES = 2000;

export function reportDraft(
  run: DraftRun,
  traces: readonly Trace[],
  options: DraftBenchOptions,
  { files, command }: { files: readonly string[]; command: string },
): DraftReport {
  const { own } = run;
  const { seed } = options;
  const timed = own.cells.reduce((best, cell) =>
    Math.abs(cell.nodes - TIMED_NODES) < Math.abs(best.nodes - TIMED_NODES) ? cell : best,
  );
  return {
    us_per_draft: { p50: usOf(timed, 0.5), p99: usOf(timed, 0.99) },
    us_nodes: timed.nodes,
    tokens_per_step: byNodes(own, ({ result }) => rounded(result.tokensPerStep)),
    ci: byNodes(own, (cell) => intervalOf(cell, seed)),
    known: byNodes(own, knownOf),
    us: byNodes(own, ({ result }) => ({
      draft: timesOf(result.draftUs),
      observe: timesOf(result.observeUs),
    })),
    memory: byNodes(own, ({ bytes }) => bytes),
    ablations: Object.fromEntries(
      run.ablations.map((row) => [row.name, byNodes(row, ({ result }) => rounded(result.tokensPerStep))]),
    ),
    peers: Object.fromEntries(run.peers.map((row) => [row.name, peerReport(row, own, seed)])),
    categories: categoriesOf(own),
    traces: {
      files: [...files],
      texts: traces.length,
      tokens: traces.reduce((sum, { tokens }) => sum + tokens.length, 0),
      steps: byNodes(own, ({ result }) => result.steps),
      off_path_nodes: traces.reduce((sum, { offPath }) => sum + (offPath?.count ?? 0), 0),
      temperatures: [...new Set(traces.map(({ temperature }) => temperature))].sort((a, b) => a - b),
    },
    top_k: options.topK,
    seed,
    environment: {
      date: new Date().toISOString(),
      command,
      cpu: cpus()[0]?.model.trim() || arch(),
      cores: availableParallelism(),
      load: rounded(loadavg()[0]),
      node: process.version,
    },
  };
}

function byNodes<T>(row: DraftRow, of: (cell: DraftCell) => T): ByNodes<T> {
  return Object.fromEntries(row.cells.map((cell) => [String(cell.nodes), of(cell)]));
}

function peerReport(row: DraftRow, own: DraftRow, seed: number): PeerReport {
  const report: PeerReport = {
    tokens_per_step: byNodes(row, ({ result }) => rounded(result.tokensPerStep)),
    ci: byNodes(row, (cell) => intervalOf(cell, seed)),
    known: byNodes(row, knownOf),
    ratio: {},
  };
  if (row.cells.some(({ variant }) => variant !== ""))
    report.variant = byNodes(row, ({ variant }) => variant);
  for (const cell of row.cells) {
    const ours = own.cells.find(({ nodes }) => nodes === cell.nodes);
    if (ours === undefined) continue;
    // every rule emits the same tokens of a text, so the ratio of tokens per step is that of the steps the other way round
    const units: RatioUnit[] = cell.result.texts.map(({ steps }, i) => ({
      numerator: steps,
      denominator: ours.result.texts[i].steps,
    }));
    report.ratio[String(cell.nodes)] = {
      ratio: rounded(ours.result.tokensPerStep / cell.result.tokensPerStep),
      ci: pair(bootstrapRatio(units, { seed, resamples: RESAMPLES })),
    };
  }
  return report;
}

function intervalOf({ result }: DraftCell, seed: number): [number, number] | null {
  const units = result.texts.map(({ steps, tokens }) => ({ numerator: tokens, denominator: steps }));
  return pair(bootstrapRatio(units, { seed, resamples: RESAMPLES }));
}

function pair(interval: Interval | null): [number, number] | null {
  return interval === null ? null : [rounded(interval.low), rounded(interval.high)];
}

function knownOf({ result }: DraftCell): number | null {
  return result.rejected === 0 ? null : rounded(result.known / result.rejected);
}

function categoriesOf(own: DraftRow): Record<string, ByNodes<number>> {
  const names = [...new Set(own.cells.flatMap(({ result }) => result.texts.map(({ category }) => category)))];
  return Object.fromEntries(
    names.sort().map((name) => [
      name,
      byNodes(own, ({ result }) => {
        const texts = result.texts.filter(({ category }) => category === name);
        const steps = texts.reduce((sum, text) => sum + text.steps, 0);
        return rounded(texts.reduce((sum, text) => sum + text.tokens, 0) / steps);
      }),
    ]),
  );
}

function timesOf(samples: Float64Array): { p50: number; p99: number } {
  return { p50: rounded(replayQuantile(samples, 0.5)), p99: rounded(replayQuantile(samples, 0.99)) };
}

function usOf({ result }: DraftCell, q: number): number | null {
  return result.draftUs.length === 0 ? null : rounded(replayQuantile(result.draftUs, q));
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/**
 * Measures drafting rules on recorded texts, without an engine: tokens per step at equal node budgets for this drafter, its ablations and the
 * rules of others, with what the traces know of rejected nodes.
 */
import type { Drafter, EngineInfo } from "../drafter/draft.ts";
import { AdedDrafter } from "../drafter/drafter.ts";
import { DRAFT_SOURCES, type DrafterOptions } from "../drafter/options.ts";
import {
  type MissingNode,
  type ReplayOptions,
  type ReplayResult,
  replay,
  replayEngine,
  shuffled,
} from "../simulator/replay.ts";
import { peersFor } from "../simulator/rules/peers.ts";
import { RuleDrafter } from "../simulator/rules/rule.ts";
import type { Trace } from "../simulator/trace.ts";
import { warmUp } from "../simulator/warm-up.ts";

export interface DraftBenchOptions {
  /** Node budgets, ascending. */
  nodes: readonly number[];
  /** Successors per node that this drafter is told. */
  topK: number;
  /** Of the order of the texts. */
  seed: number;
  nVocab?: number;
  peers: boolean;
  ablations: boolean;
}

export interface DraftProgress {
  done: number;
  total: number;
  /** What is being replayed. */
  note: string;
}

/** One rule at one node budget. */
export interface DraftCell {
  nodes: number;
  result: ReplayResult;
  /** Of several variants the one that did best; "" if there is one only. */
  variant: string;
  /** Bytes of the drafter's matrices at the end; 0 for others. */
  bytes: number;
}

export interface DraftRow {
  name: string;
  kind: "own" | "ablation" | "peer";
  cells: DraftCell[];
}

export interface DraftRun {
  own: DraftRow;
  ablations: DraftRow[];
  peers: DraftRow[];
}

/** Something to replay: how its drafter is made, and what the replay tells it. */
interface Contender {
  name: string;
  kind: DraftRow["kind"];
  variants: readonly { label: string; run(traces: readonly Trace[], nodes: number): Measured }[];
}

interface Measured {
  result: ReplayResult;
  bytes: number;
}

/** Replays everything. @throws the signal's reason when aborted */
export async function runDraft(
  traces: readonly Trace[],
  options: DraftBenchOptions,
  { signal, onProgress }: { signal?: AbortSignal; onProgress?: (progress: DraftProgress) => void } = {},
): Promise<DraftRun> {
  const ordered = shuffled(traces, options.seed);
  const contenders = contendersFor(ordered, options);
  const total = contenders.length * options.nodes.length;
  let done = 0;
  const rows: DraftRow[] = [];
  for (const { name, kind, variants } of contenders) {
    const cells: DraftCell[] = [];
    for (const nodes of options.nodes) {
      signal?.throwIfAborted();
      onProgress?.({ done, total, note: `${name}, ${nodes} nodes` });
      // the signal and the progress bar are served between two replays
      await new Promise((resolve) => setImmediate(resolve));
      let best: DraftCell | undefined;
      for (const { label, run } of variants) {
        const { result, bytes } = run(ordered, nodes);
        if (best === undefined || result.tokensPerStep > best.result.tokensPerStep) {
          best = { nodes, result, variant: label, bytes };
        }
      }
      if (best !== undefined) cells.push(best);
      done++;
    }
    rows.push({ name, kind, cells });
  }
  onProgress?.({ done, total, note: "" });
  const of = (kind: DraftRow["kind"]): DraftRow[] => rows.filter((row) => row.kind === kind);
  return { own: of("own")[0], ablations: of("ablation"), peers: of("peer") };
}

/** Every drafter that fair traces must know the rejected nodes of: this one and the peers' rules. */
export function missingNodes(
  traces: readonly Trace[],
  options: DraftBenchOptions,
  onMissing: (node: MissingNode) => void,
): { rejected: number; known: number } {
  const ordered = shuffled(traces, options.seed);
  let rejected = 0;
  let known = 0;
  for (const { drafter, topK } of fairDrafters(ordered, options)) {
    const result = replay(drafter, ordered, { topK, onMissing });
    rejected += result.rejected;
    known += result.known;
  }
  return { rejected, known };
}

function* fairDrafters(
  traces: readonly Trace[],
  options: DraftBenchOptions,
): Generator<{ drafter: Drafter; topK?: number }> {
  for (const nodes of options.nodes) {
    yield { drafter: ownDrafter(traces, nodes, options, {}), topK: options.topK };
    if (!options.peers) continue;
    for (const { variants } of peersFor(traces)) {
      for (const { create } of variants) yield { drafter: new RuleDrafter(create(), nodes) };
    }
  }
}

function infoFor(traces: readonly Trace[], nodes: number, { nVocab, topK }: DraftBenchOptions): EngineInfo {
  return replayEngine(traces, nodes, nVocab === undefined ? { topK } : { topK, nVocab });
}

function ownDrafter(
  traces: readonly Trace[],
  nodes: number,
  options: DraftBenchOptions,
  changes: DrafterOptions,
): AdedDrafter {
  return new AdedDrafter(infoFor(traces, nodes, options), { ...changes, fixedNodes: nodes });
}

function contendersFor(traces: readonly Trace[], options: DraftBenchOptions): Contender[] {
  const { topK } = options;
  const own = (
    name: string,
    kind: DraftRow["kind"],
    changes: DrafterOptions = {},
    told: ReplayOptions = {},
  ): Contender => ({
    name,
    kind,
    variants: [
      {
        label: "",
        run: (texts, nodes) => {
          const drafter = ownDrafter(traces, nodes, options, changes);
          const result = replay(drafter, texts, { topK, ...told });
          return { result, bytes: drafter.stats().matrix.bytes };
        },
      },
    ],
  });
  // the hot paths are compiled before anything is timed, as in service
  warmUp(infoFor(traces, options.nodes[0], options));
  const contenders = [own("aded", "own")];
  if (options.ablations) {
    contenders.push(
      own("puct instead of best-first", "ablation", { search: "puct" }),
      own("bi-gram alone", "ablation", { without: DRAFT_SOURCES.filter((source) => source !== "bigram") }),
      own("bi-gram and tri-gram", "ablation", {
        without: DRAFT_SOURCES.filter((source) => source !== "bigram" && source !== "trigram"),
      }),
      ...DRAFT_SOURCES.filter((source) => !source.startsWith("corpus")).map((source) =>
        own(`without ${source}`, "ablation", { without: [source] }),
      ),
      own("without off-path knowledge", "ablation", {}, { offPath: false }),
      ...[4, 8, 12, 16].map((k) =>
        own(`top-k ${k}`, "ablation", { matrixWidth: Math.max(k, 1) }, { topK: k }),
      ),
      ...coldAndWarm(traces, options),
    );
  }
  if (!options.peers) return contenders;
  const peers = peersFor(traces).map(
    ({ name, variants }): Contender => ({
      name,
      kind: "peer",
      variants: variants.map(({ label, create }) => ({
        label,
        run: (texts, nodes) => ({ result: replay(new RuleDrafter(create(), nodes), texts), bytes: 0 }),
      })),
    }),
  );
  return [...contenders, ...peers];
}

/** What is learnt across texts: a fresh drafter for every text; the second half of the texts without and after the first. */
function coldAndWarm(traces: readonly Trace[], options: DraftBenchOptions): Contender[] {
  const { topK } = options;
  const half = traces.length >> 1;
  const contender = (name: string, run: (nodes: number) => Measured): Contender => ({
    name,
    kind: "ablation",
    variants: [{ label: "", run: (_texts, nodes) => run(nodes) }],
  });
  const measured = (drafter: AdedDrafter, texts: readonly Trace[]): Measured => ({
    result: replay(drafter, texts, { topK }),
    bytes: drafter.stats().matrix.bytes,
  });
  return [
    contender("a fresh drafter for every text", (nodes) => {
      const runs = traces.map((trace) => replay(ownDrafter(traces, nodes, options, {}), [trace], { topK }));
      return { result: together(runs), bytes: 0 };
    }),
    contender("second half of the texts, cold", (nodes) =>
      measured(ownDrafter(traces, nodes, options, {}), traces.slice(half)),
    ),
    contender("second half, after the first", (nodes) => {
      const drafter = ownDrafter(traces, nodes, options, {});
      replay(drafter, traces.slice(0, half), { topK });
      return measured(drafter, traces.slice(half));
    }),
  ];
}

function together(runs: readonly ReplayResult[]): ReplayResult {
  const sum = (of: (run: ReplayResult) => number): number => runs.reduce((all, run) => all + of(run), 0);
  const samples = (of: (run: ReplayResult) => Float64Array): Float64Array =>
    Float64Array.from(runs.flatMap((run) => [...of(run)]));
  const steps = sum((run) => run.steps);
  const tokens = sum((run) => run.tokens);
  return {
    steps,
    tokens,
    tokensPerStep: tokens / steps,
    nodes: sum((run) => run.nodes),
    rejected: sum((run) => run.rejected),
    known: sum((run) => run.known),
    draftUs: samples((run) => run.draftUs),
    observeUs: samples((run) => run.observeUs),
    decodeUs: sum((run) => run.decodeUs),
    texts: runs.flatMap((run) => run.texts),
  };
}

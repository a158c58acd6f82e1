/**
 * Completes traces: asks an engine what the model says at the nodes that the rules draft and the texts do not take, again and again, since
 * what a rule learns changes what it drafts.
 */
import { fill, MissingNodes, type VerifyTree } from "../simulator/fill.ts";
import type { Trace } from "../simulator/trace.ts";
import { type DraftBenchOptions, missingNodes } from "./draft.ts";

export interface CompleteOptions {
  bench: DraftBenchOptions;
  /** Ends when less than this share of the rejected nodes is unknown. @default 0.02 */
  share?: number;
  /** Ends after that time, ms. @default no limit */
  limitMs?: number;
  /** Most rounds. @default 6 */
  rounds?: number;
  /** Told after every text: nodes that are new in its trace. */
  onText?: (trace: Trace, nodes: readonly number[]) => void;
  onRound?: (round: CompleteRound) => void;
  onProgress?: (done: number, total: number, note: string) => void;
  signal?: AbortSignal;
}

export interface CompleteRound {
  round: number;
  /** Rejected nodes of all replays, and how many of them were unknown at the start of the round. */
  rejected: number;
  unknown: number;
  /** Different ones. */
  missing: number;
}

/** @returns the share of rejected nodes that was unknown when last looked at */
export async function completeTraces(
  traces: readonly Trace[],
  verify: VerifyTree,
  options: CompleteOptions,
): Promise<number> {
  const { share = 0.02, limitMs = Number.POSITIVE_INFINITY, rounds = 6, signal, onProgress } = options;
  const until = performance.now() + limitMs;
  const timeUp = new AbortController();
  const stopped = signal === undefined ? timeUp.signal : AbortSignal.any([signal, timeUp.signal]);
  let unknown = 1;
  // small budgets first: their nodes are those that matter most, and what larger ones need besides is asked for afterwards
  for (let last = 1; last <= options.bench.nodes.length; last++) {
    const bench = { ...options.bench, nodes: options.bench.nodes.slice(0, last) };
    for (let round = 1; round <= rounds; round++) {
      signal?.throwIfAborted();
      const missing = new MissingNodes();
      const { rejected, known } = missingNodes(traces, bench, (node) => missing.add(node));
      unknown = rejected === 0 ? 0 : 1 - known / rejected;
      options.onRound?.({ round, rejected, unknown: rejected - known, missing: missing.count });
      if (unknown <= share || missing.count === 0) break;
      let added = 0;
      try {
        await fill(missing, verify, {
          signal: stopped,
          onText: (trace, nodes) => {
            added += nodes.length;
            options.onText?.(trace, nodes);
            onProgress?.(added, missing.count, `${bench.nodes[last - 1]} nodes, round ${round}`);
            if (performance.now() > until) timeUp.abort();
          },
        });
      } catch (error) {
        if (signal?.aborted || !timeUp.signal.aborted) throw error;
        return unknown;
      }
      if (timeUp.signal.aborted) return unknown;
    }
  }
  return unknown;
}

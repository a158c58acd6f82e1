/**
 * Replays recorded texts through a drafter, without an engine: each step drafts a tree, walks it along the recorded continuation and tells the
 * drafter what an engine would have told of the root and the accepted nodes. What the model would have said at rejected nodes is not in a trace, so
 * the figures are on the low side.
 *
 *     npx tsx src/drafter/replay.ts TRACE.jsonl [nodes,nodes,…] [best-first|puct]
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { AdedError } from "../errors.ts";
import type { Drafter, EngineInfo, VerifiedSlot, VerifiedStep } from "./draft.ts";
import { AdedDrafter } from "./drafter.ts";
import type { DrafterOptions } from "./options.ts";
import { Random } from "./random.ts";

/** One recorded generation. As JSONL: one such object per line. */
export interface Trace {
  id: string;
  category: string;
  /** Token ids of the prompt. */
  prompt: number[];
  /** Token ids of the output, the target's choices. */
  tokens: number[];
  /** Successors recorded per position. */
  k: number;
  /** The model's k likeliest tokens at each position of the output, likeliest first. Length tokens.length * k. */
  ids: number[];
  /** Their probabilities at temperature 1. */
  probs: number[];
}

export interface ReplayResult {
  /** Steps in which a draft could be made. */
  steps: number;
  /** Tokens that these steps emitted. */
  tokens: number;
  tokensPerStep: number;
  /** µs of draft() and observe() together, per step, in order. */
  draftUs: Float64Array;
}

export interface ReplayOptions {
  /** Temperature that the drafter is told; the trace decides what is accepted. @default 0 (greedy) */
  temperature?: number;
  /** @default "" */
  scope?: string;
}

/** Reads a JSONL file of traces. Throws ADED_BENCH naming the line that is not one. */
export function readTraces(file: string): Trace[] {
  const traces: Trace[] = [];
  for (const [index, line] of readFileSync(file, "utf8").split("\n").entries()) {
    if (line.trim() !== "") traces.push(parseTrace(line, `${file}:${index + 1}`));
  }
  return traces;
}

function parseTrace(line: string, where: string): Trace {
  const hint =
    "each line is one JSON object {id, category, prompt, tokens, k, ids, probs}; see docs/drafter.md";
  let trace: Trace;
  try {
    trace = JSON.parse(line) as Trace;
  } catch (cause) {
    throw new AdedError("ADED_BENCH", `${where} is not JSON`, { hint, cause });
  }
  const entries = trace?.tokens?.length * trace?.k;
  if (!(trace?.prompt?.length > 0) || trace.ids?.length !== entries || trace.probs?.length !== entries) {
    throw new AdedError("ADED_BENCH", `${where} is not a trace`, { hint });
  }
  return trace;
}

/** What an engine with one slot and free forward passes would say of itself. */
export function replayEngine(traces: readonly Trace[], maxNodes: number): EngineInfo {
  let nVocab = 1;
  let topK = 1;
  for (const trace of traces) {
    for (const list of [trace.prompt, trace.tokens, trace.ids]) {
      for (const id of list) if (id >= nVocab) nVocab = id + 1;
    }
    topK = Math.max(topK, trace.k);
  }
  return {
    model: "replay",
    nVocab,
    vocabHash: "0000000000000000",
    nSlots: 1,
    maxNodes,
    tree: true,
    maxChain: 0,
    topK,
    costTokens: Int32Array.of(1, 64),
    costUs: Float32Array.of(1000, 2000),
  };
}

/** Replays the traces one after the other through one drafter, which keeps what it learns. */
export function replay(
  drafter: Drafter,
  traces: readonly Trace[],
  options: ReplayOptions = {},
): ReplayResult {
  let steps = 0;
  let tokens = 0;
  const times: number[] = [];
  for (const [index, trace] of traces.entries()) {
    const { k } = trace;
    const output = Int32Array.from(trace.tokens);
    const ids = Int32Array.from(trace.ids);
    const probs = Float32Array.from(trace.probs);
    drafter.begin({
      slot: 0,
      id: index,
      scope: options.scope ?? "",
      keep: 0,
      tokens: Int32Array.from(trace.prompt),
      sampling: {
        greedy: !(options.temperature && options.temperature > 0),
        temperature: options.temperature ?? 0,
        grammar: false,
        draft: true,
      },
    });
    let root = trace.prompt[trace.prompt.length - 1];
    let at = 0; // output tokens emitted so far
    let walked = 0; // draft nodes accepted in the step
    while (at < output.length) {
      const emitted = Math.min(walked + 1, output.length - at);
      const nodes = new Int32Array(walked + 1);
      nodes[0] = root;
      for (let i = 0; i < walked; i++) nodes[i + 1] = output[at + i];
      const verified: VerifiedSlot = {
        slot: 0,
        accepted: output.slice(at, at + emitted),
        nodes,
        parents: Int32Array.from(nodes, (_, i) => i - 1),
        path: Int32Array.from(nodes, (_, i) => i),
        k,
        ids: ids.slice(at * k, (at + walked + 1) * k),
        probs: probs.slice(at * k, (at + walked + 1) * k),
        room: output.length - at - emitted,
        draft: true,
      };
      const step: VerifiedStep = { decodeUs: 0, nBatch: 0, slots: [verified] };
      const start = performance.now();
      drafter.observe(step);
      const drafts = verified.room > 0 ? drafter.draft(step) : [];
      times.push((performance.now() - start) * 1000);
      if (at > 0) {
        steps++;
        tokens += emitted;
      }
      at += emitted;
      if (at >= output.length) break;
      root = output[at - 1];
      walked = drafts.length > 0 ? walk(drafts[0].tokens, drafts[0].parents, output, at) : 0;
    }
    drafter.end(0, index, "limit");
  }
  return { steps, tokens, tokensPerStep: steps > 0 ? tokens / steps : 0, draftUs: Float64Array.from(times) };
}

/** How many draft nodes in a row equal what comes next. */
function walk(tokens: Int32Array, parents: Int32Array, output: Int32Array, at: number): number {
  let node = -1;
  let depth = 0;
  for (let i = 0; i < tokens.length && at + depth < output.length - 1; i++) {
    if (parents[i] === node && tokens[i] === output[at + depth]) {
      node = i;
      depth++;
    }
  }
  return depth;
}

/** The value below which the share `q` of the samples lies; NaN without samples. */
export function quantile(samples: Float64Array, q: number): number {
  if (samples.length === 0) return Number.NaN;
  const sorted = samples.slice().sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

function main(args: readonly string[]): void {
  const [file, sizes = "3,7,15,31,63", only] = args;
  if (file === undefined) {
    console.error("usage: replay.ts TRACE.jsonl [nodes,nodes,…] [best-first|puct]");
    process.exitCode = 2;
    return;
  }
  const traces = new Random(1).shuffle(readTraces(file));
  const searches = (only === undefined ? ["best-first", "puct"] : [only]) as DrafterOptions["search"][];
  for (const search of searches) {
    for (const nodes of sizes.split(",").map(Number)) {
      const info = replayEngine(traces, nodes);
      const result = replay(new AdedDrafter(info, { search, fixedNodes: nodes }), traces);
      const half = result.draftUs.slice(result.draftUs.length >> 1);
      console.log(
        `${search} ${nodes} nodes: ${result.tokensPerStep.toFixed(3)} tokens/step over ${result.steps} steps; ` +
          `observe + draft p50 ${quantile(half, 0.5).toFixed(1)} µs, p99 ${quantile(half, 0.99).toFixed(1)} µs`,
      );
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.slice(2));

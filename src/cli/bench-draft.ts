/** `aded bench draft`: replays recorded texts through this drafter and the rules of others; records and completes such traces, too. */
import { appendFileSync, existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { Command } from "commander";
import { DEFAULT_PROMPTS } from "../bench/default-prompts.ts";
import { type DraftBenchOptions, runDraft } from "../bench/draft.ts";
import { completeTraces } from "../bench/draft-complete.ts";
import { formatDraft, formatDraftMarkdown } from "../bench/draft-format.ts";
import { plotDraft } from "../bench/draft-plot.ts";
import { recordTexts } from "../bench/draft-record.ts";
import { type DraftReport, reportDraft } from "../bench/draft-report.ts";
import { loadPrompts, spread } from "../bench/prompts.ts";
import { treeVerifier } from "../bench/tree-verify.ts";
import type { Progress } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import { homePath } from "../home.ts";
import type { Trace } from "../simulator/trace.ts";
import { formatOffPath, formatText, readTraces } from "../simulator/trace-file.ts";
import { checkFolder, commandLine, save } from "./bench-support.ts";
import { type TargetFlags, targetOptions, withTarget } from "./bench-target.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";
import { atLeast, decimal } from "./values.ts";

interface DraftFlags extends TargetFlags {
  trace?: string[];
  record?: string;
  complete?: number;
  nodes: number[];
  limit?: number;
  topK: number;
  seed: number;
  peers: boolean;
  ablations: boolean;
  prompts?: string[];
  maxTokens: number;
  temperature: number;
  concurrency: number;
  model?: string;
  json?: string | true;
  md?: string;
  svg?: string;
}

/** Likeliest tokens recorded per position: as many as the widest rule reads. */
const RECORDED = 64;
const MOST_NODES = 63;
/** What is recorded when no trace is named: enough to see the figures' order, in a minute or two. */
const SMALL = { prompts: 16, minutes: 2 };

export function draftCommand(): Command {
  return targetOptions(
    new Command("draft")
      .description(
        "replay recorded texts: tokens per step of this drafter, its ablations and the rules of others",
      )
      .option("--trace <files...>", "traces: made by --record here or by aded serve --record")
      .option("--nodes <list>", "most draft nodes per step, such as 7,15,63", nodeList, [3, 7, 15, 31, 63])
      .option("--limit <n>", "most texts, spread evenly over each file", atLeast("--limit", 1))
      .option("--top-k <k>", "successors that this drafter is told of each node", atLeast("--top-k", 1), 12)
      .option("--seed <n>", "for the order of the texts and the intervals", atLeast("--seed", 0), 1)
      .option("--no-peers", "without the rules of others")
      .option("--no-ablations", "without the ablations")
      .option(
        "--record <file>",
        "record the texts of --prompts into that file first; goes on where it stopped",
      )
      .option("--prompts <files...>", "JSONL files, as for bench ab (default: a built-in list)")
      .option("--max-tokens <n>", "longest recorded text, tokens", atLeast("--max-tokens", 2), 160)
      .option("--temperature <t>", "of the recorded texts; 0: greedy", decimal("--temperature", 0), 0)
      .option("--concurrency <n>", "texts recorded at once", atLeast("--concurrency", 1), 4)
      .option(
        "--complete <minutes>",
        "ask the engine, for so long at most, about drafted nodes that the traces know nothing of",
        decimal("--complete", 0),
      ),
  )
    .option("--json [file]", "write the report as JSON; to stdout without a file")
    .option("--md <file>", "write the tables as Markdown")
    .option("--svg <file>", "write the curves as SVG")
    .action((flags: DraftFlags) => benchDraft(flags));
}

function nodeList(value: string): number[] {
  const nodes = value.split(",").map(Number);
  if (!nodes.every((n) => Number.isInteger(n) && n >= 1 && n <= MOST_NODES)) {
    throw new AdedError("ADED_USAGE", `--nodes is "${value}"`, {
      hint: `give numbers from 1 to ${MOST_NODES}, such as 7,15,63`,
    });
  }
  return [...new Set(nodes)].sort((a, b) => a - b);
}

/** Texts, and the file that each came from. */
interface Loaded {
  traces: Trace[];
  fileOf: Map<Trace, string>;
  nVocab?: number;
}

async function benchDraft(flags: DraftFlags): Promise<void> {
  for (const file of [flags.json, flags.md, flags.svg, flags.record]) {
    if (typeof file === "string") await checkFolder(file);
  }
  const progress = createProgress();
  const files = [...(flags.trace ?? [])];
  let minutes = flags.complete;
  if (flags.record !== undefined) files.push(flags.record);
  else if (files.length === 0) {
    minutes ??= SMALL.minutes;
    files.push(await smallTraceFile());
    progress.line(`no --trace: ${SMALL.prompts} texts of the served model are recorded into ${files[0]}`);
  }
  let loaded: Loaded | undefined;
  const recorded = flags.record ?? (flags.trace === undefined ? files[0] : undefined);
  if (recorded !== undefined || minutes !== undefined) {
    await withTarget(flags, async (url, apiKey) => {
      const server = { url, apiKey };
      if (recorded !== undefined) await record(server, recorded, flags, progress);
      loaded = await load(files, flags.limit);
      if (minutes !== undefined) await complete(server, loaded, minutes, flags, progress);
    });
  }
  loaded ??= await load(files, flags.limit);
  const options = optionsOf(flags, loaded);
  const task = progress.task("Replays", "steps");
  const run = await runDraft(loaded.traces, options, {
    signal: interruptSignal,
    onProgress: ({ done, total, note }) => task.update(done, total, note),
  });
  task.end("done");
  const command = commandLine(process.argv);
  await write(reportDraft(run, loaded.traces, options, { files, command }), flags);
}

function optionsOf(
  { nodes, topK, seed, peers, ablations }: DraftFlags,
  { nVocab }: Loaded,
): DraftBenchOptions {
  return { nodes, topK, seed, peers, ablations, nVocab };
}

async function smallTraceFile(): Promise<string> {
  const file = homePath("traces", "small.jsonl");
  await mkdir(path.dirname(file), { recursive: true });
  await rm(file, { force: true });
  return file;
}

async function load(files: readonly string[], limit: number | undefined): Promise<Loaded> {
  const loaded: Loaded = { traces: [], fileOf: new Map() };
  for (const file of files) {
    const { traces, nVocab } = await readTraces(file);
    for (const trace of spread(traces, limit)) {
      loaded.traces.push(trace);
      loaded.fileOf.set(trace, file);
    }
    if (nVocab !== undefined) loaded.nVocab = Math.max(nVocab, loaded.nVocab ?? 0);
  }
  if (loaded.traces.length > 0) return loaded;
  throw new AdedError("ADED_BENCH", `no texts in ${files.join(", ")}`, {
    hint: "record some: aded bench draft --record FILE, or aded serve --record FILE",
  });
}

interface Server {
  url: string;
  apiKey: string | undefined;
}

async function record(
  { url, apiKey }: Server,
  file: string,
  flags: DraftFlags,
  progress: Progress,
): Promise<void> {
  const there = existsSync(file) ? (await readTraces(file)).traces : [];
  const known = new Set(there.map(({ id }) => id));
  const all =
    flags.prompts === undefined
      ? spread(DEFAULT_PROMPTS, flags.limit ?? SMALL.prompts)
      : await loadPrompts(flags.prompts, { limit: flags.limit });
  const prompts = all.filter(({ id }) => !known.has(id));
  const task = progress.task("Texts", "steps");
  await recordTexts(url, {
    prompts,
    maxTokens: flags.maxTokens,
    topK: RECORDED,
    temperature: flags.temperature,
    seed: flags.seed,
    concurrency: flags.concurrency,
    apiKey,
    model: flags.model,
    signal: interruptSignal,
    onTrace: (trace, done) => {
      appendFileSync(file, formatText(trace), { mode: 0o600 });
      task.update(done, prompts.length, trace.id);
    },
  });
  task.end("done");
}

async function complete(
  { url, apiKey }: Server,
  loaded: Loaded,
  minutes: number,
  flags: DraftFlags,
  progress: Progress,
): Promise<void> {
  const verifier = treeVerifier(url, { apiKey, model: flags.model, signal: interruptSignal });
  const task = progress.task("Rejected nodes", "steps");
  try {
    const unknown = await completeTraces(loaded.traces, verifier.verify, {
      bench: optionsOf(flags, loaded),
      limitMs: minutes * 60_000,
      signal: interruptSignal,
      onText: (trace, nodes) => {
        if (nodes.length === 0 || trace.offPath === undefined) return;
        appendFileSync(loaded.fileOf.get(trace) as string, formatOffPath(trace.id, trace.offPath, nodes));
      },
      onProgress: (done, total, note) => task.update(done, total, note),
    });
    task.end(`unknown: ${(unknown * 100).toFixed(1)} %`);
  } finally {
    await verifier.close();
  }
}

async function write(report: DraftReport, { json, md, svg }: DraftFlags): Promise<void> {
  const text = `${JSON.stringify(report, null, 1)}\n`;
  if (typeof json === "string") await save(json, text);
  if (md !== undefined) await save(md, formatDraftMarkdown(report));
  if (svg !== undefined) await save(svg, plotDraft(report));
  process.stdout.write(json === true ? text : formatDraft(report));
}

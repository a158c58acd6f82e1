/** `aded bench ab`: two arms, in pairs, with intervals. */
import { Command, Option } from "commander";
import { type AbOptions, type ArmSpec, blockSize, plannedPairs, runAb } from "../bench/ab.ts";
import { readReport, resumable } from "../bench/ab-file.ts";
import { formatCsv, formatMarkdown, formatTable } from "../bench/ab-format.ts";
import { formatHtml } from "../bench/ab-html.ts";
import { type AbReport, decodeRatio, reportAb } from "../bench/ab-report.ts";
import { type Bound, checkBounds, formatBounds, parseBound } from "../bench/bounds.ts";
import { type Arm, ChatClient } from "../bench/chat-client.ts";
import { DEFAULT_PROMPTS } from "../bench/default-prompts.ts";
import { addDrafts, draftsBetween, readDraftFigures } from "../bench/draft-figures.ts";
import { describeEnvironment } from "../bench/environment.ts";
import { LIMIT_NAMES, type Limits } from "../bench/goodput.ts";
import { type BenchPrompt, hashPrompts, loadPrompts, spread } from "../bench/prompts.ts";
import { narrowEnough, planLooks } from "../bench/sequential.ts";
import type { Progress } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import { checkFolder, commandLine, integer, save } from "./bench-support.ts";
import { type TargetFlags, targetOptions, withTarget } from "./bench-target.ts";
import { interruptSignal } from "./interrupt.ts";
import { decimal } from "./values.ts";

/** What has been measured is written that often, ms, so that not even a crash loses more. */
const CHECKPOINT_MS = 15_000;

export interface AbFlags extends TargetFlags {
  against?: string;
  againstModel?: string;
  againstApiKey?: string;
  drafts: Record<Arm, Arm>;
  prompts?: string[];
  limit?: number;
  maxTokens: number;
  repeat: number;
  concurrency: number;
  rate?: number;
  block?: number;
  stream: boolean;
  clock: "engine" | "client";
  seed: number;
  temperature: number;
  topP?: number;
  topK?: number;
  warmup: number;
  model?: string;
  goodput?: Limits;
  stopWidth?: number;
  looks: number;
  resolve: number;
  resume?: boolean;
  bound?: Bound[];
  failBelow?: number;
  json?: string | true;
  csv?: string;
  md?: string;
  html?: string;
}

export function abCommand(): Command {
  return targetOptions(
    new Command("ab").description("answer the same prompts in two arms (drafts on and off), and compare"),
  )
    .option("--against <url>", "the off-arm's server (default: the same)")
    .option("--against-model <name>", "the off-arm's model (default: the same)")
    .addOption(
      new Option("--drafts <on,off>", "x-aded of the two arms: on,off; off,off for an A/A test; on,on")
        .argParser(drafts)
        .default({ on: "on", off: "off" }, "on,off"),
    )
    .option("--prompts <files...>", "prompts (docs/bench.md tells the formats); FILE:N takes N of a file")
    .option("--limit <n>", "most prompts per file, spread evenly over it", integer("--limit", 1))
    .option("--max-tokens <n>", "longest answer, tokens", integer("--max-tokens", 1), 160)
    .option("--repeat <n>", "how often each prompt is measured", integer("--repeat", 1), 1)
    .option("--concurrency <n>", "requests of one arm at once", integer("--concurrency", 1), 1)
    .option(
      "--rate <r>",
      "instead: requests per second, arriving at random (Poisson)",
      decimal("--rate", 0.001),
    )
    .option(
      "--block <n>",
      "requests of one arm in a row (default: with --rate 16; else 1, or four times --concurrency)",
      integer("--block", 1),
    )
    .option("--no-stream", "answers in one piece: no times of single tokens")
    .option("--clock <whose>", "decode times: the engine's, or the client's", clock, "engine")
    .option("--seed <n>", "for order, arrivals, sampling and interval", integer("--seed", 0), 1)
    .option("--temperature <t>", "0: greedy", decimal("--temperature", 0), 0)
    .option("--top-p <p>", "nucleus sampling", decimal("--top-p", 0))
    .option("--top-k <k>", "sample from the k likeliest", integer("--top-k", 1))
    .option("--warmup <n>", "pairs beforehand that do not count", integer("--warmup", 0), 2)
    .option("--goodput <limits...>", `count requests within limits, ms: ${LIMIT_NAMES.join(":, ")}:`, limits)
    .option(
      "--stop-width <w>",
      "stop as soon as the interval's width / ratio is at most w (0.1: about ±5 %)",
      decimal("--stop-width", 0.0001),
    )
    .option("--looks <n>", "with --stop-width: how often the run may stop", integer("--looks", 2), 5)
    .option(
      "--resolve <d>",
      "the smallest relative difference that matters",
      decimal("--resolve", 0.0001),
      0.05,
    )
    .option("--resume", "go on with the run that --json FILE holds")
    .option("--fail-below <r>", "exit status 1 unless the interval lies above r", decimal("--fail-below", 0))
    .option("--bound <exprs...>", "exit status 1 unless they hold: arms.on.ttft_ms.p95<=200", bounds)
    .option("--against-api-key <key>", "for --against (default: the same)")
    .option("--json [file]", "write the whole report as JSON; to stdout without a file")
    .option("--csv <file>", "write one line per request")
    .option("--md <file>", "write the tables as Markdown")
    .option("--html <file>", "write a page with plots, complete in one file")
    .action((flags: AbFlags) => benchAb(flags));
}

function drafts(value: string): Record<Arm, Arm> {
  const match = /^(on|off),(on|off)$/.exec(value);
  if (match === null) {
    throw new AdedError("ADED_USAGE", `--drafts is "${value}"`, { hint: "Give two of on and off: on,off" });
  }
  return { on: match[1] as Arm, off: match[2] as Arm };
}

function clock(value: string): "engine" | "client" {
  if (value === "engine" || value === "client") return value;
  throw new AdedError("ADED_USAGE", `--clock is "${value}"`, { hint: "Give engine or client." });
}

function limits(value: string, before: Limits | undefined): Limits {
  const match = /^([a-z0-9]+):(\d+(?:\.\d+)?)$/.exec(value);
  const name = LIMIT_NAMES.find((known) => known === match?.[1]);
  if (match === null || name === undefined) {
    throw new AdedError("ADED_USAGE", `--goodput has "${value}"`, {
      hint: `Give limits in ms, such as ttft:200 tpot:50; there are ${LIMIT_NAMES.join(", ")}.`,
    });
  }
  return { ...before, [name]: Number(match[2]) };
}

export function bounds(value: string, before: Bound[] | undefined): Bound[] {
  return [...(before ?? []), parseBound(value)];
}

/** Decided before anything is measured. */
export async function choosePrompts({
  prompts,
  limit,
}: Pick<AbFlags, "prompts" | "limit">): Promise<readonly BenchPrompt[]> {
  if (prompts !== undefined) return loadPrompts(prompts, { limit });
  return spread(DEFAULT_PROMPTS, limit);
}

async function benchAb(flags: AbFlags): Promise<void> {
  if (flags.resume && typeof flags.json !== "string") {
    throw new AdedError("ADED_USAGE", "--resume needs --json FILE", {
      hint: "Name the file of the earlier run.",
    });
  }
  const prompts = await choosePrompts(flags);
  for (const path of [flags.json, flags.csv, flags.md, flags.html]) {
    if (typeof path === "string") await checkFolder(path);
  }
  await withTarget(flags, (url, apiKey, progress) => measure(url, prompts, { ...flags, apiKey }, progress));
}

function optionsOf(flags: AbFlags, prompts: readonly BenchPrompt[]): AbOptions {
  const arm = (name: Arm, model: string | undefined): ArmSpec => ({ drafts: flags.drafts[name], model });
  const plain = flags.drafts.on === "on" && flags.drafts.off === "off" && flags.againstModel === undefined;
  return {
    prompts,
    maxTokens: flags.maxTokens,
    repeat: flags.repeat,
    concurrency: flags.concurrency,
    seed: flags.seed,
    temperature: flags.temperature,
    topP: flags.topP,
    topK: flags.topK,
    warmup: flags.warmup,
    model: flags.model,
    stream: flags.stream,
    clock: flags.clock,
    rate: flags.rate,
    block: flags.block,
    arms: plain
      ? undefined
      : { on: arm("on", flags.model), off: arm("off", flags.againstModel ?? flags.model) },
  };
}

/** Measures, and reports whatever was measured, also when interrupted or given up. */
async function measure(
  url: string,
  prompts: readonly BenchPrompt[],
  flags: AbFlags,
  progress: Progress,
): Promise<void> {
  const connections = flags.rate === undefined ? flags.concurrency : blockSize(flags);
  const on = new ChatClient(url, { apiKey: flags.apiKey, connections });
  const off =
    flags.against === undefined
      ? on
      : new ChatClient(flags.against, { apiKey: flags.againstApiKey ?? flags.apiKey, connections });
  const options = optionsOf(flags, prompts);
  const promptsHash = hashPrompts(prompts);
  try {
    const environment = await describeEnvironment(on, {
      command: commandLine(process.argv),
      model: flags.model,
      against:
        off === on && flags.againstModel === undefined
          ? undefined
          : { client: off, model: flags.againstModel },
      signal: interruptSignal,
    });
    const earlier =
      flags.resume && typeof flags.json === "string"
        ? resumable(await readReport(flags.json, { missing: "none" }), { options, promptsHash })
        : undefined;
    const sequential =
      flags.stopWidth === undefined
        ? undefined
        : planLooks(plannedPairs(options), { width: flags.stopWidth, looks: flags.looks });
    const readDrafts = async () => readDraftFigures(await on.get("/aded/status"), flags.model);
    const before = await readDrafts();
    const extras = { limits: flags.goodput, sequential, resolve: flags.resolve, promptsHash };
    let written = performance.now();
    const task = progress.task("Requests", "steps");
    const run = await runAb({ on, off }, options, {
      signal: interruptSignal,
      resume: earlier === undefined ? undefined : { ...earlier, busy_ms: earlier.busy_ms ?? undefined },
      onProgress: ({ done, total }) => task.update(done, total),
      looks: sequential?.looks,
      enough: (samples) =>
        sequential !== undefined &&
        narrowEnough(decodeRatio(samples, { seed: options.seed, level: sequential.level }), sequential.width),
      onBlock: async (part) => {
        if (typeof flags.json !== "string" || performance.now() - written < CHECKPOINT_MS) return;
        await save(flags.json, `${JSON.stringify(reportAb(part, options, environment, extras))}\n`);
        written = performance.now();
      },
    });
    task.end(
      run.complete ? (run.early ? "stopped early, the interval is narrow enough" : "done") : "stopped",
    );
    const alive = run.stopped === undefined || run.stopped.code === "ADED_INTERRUPTED";
    const after = alive ? await readDrafts().catch(() => undefined) : undefined;
    if (run.complete) environment.aded_status = (await on.get("/aded/status")) ?? null;
    const counted =
      after === undefined ? null : addDrafts(earlier?.drafts ?? null, draftsBetween(before, after));
    const report = reportAb(run, options, environment, { ...extras, drafts: counted });
    await write(report, flags);
    if (run.stopped !== undefined) throw run.stopped;
    if (report.n === 0)
      throw new AdedError("ADED_BENCH", "no pair was answered", { hint: report.notes.at(-1) });
    failUnlessKept(report, boundsOf(flags, report));
  } finally {
    await on.close();
    if (off !== on) await off.close();
  }
}

/** `--fail-below r`: the interval's lower end, or the ratio itself where five prompts were not measured. */
function boundsOf({ bound = [], failBelow }: AbFlags, report: AbReport): Bound[] {
  if (failBelow === undefined) return bound;
  const path = report.overall.ci === null ? "overall.ratio" : "overall.ci.0";
  return [...bound, { path, operator: ">=", limit: failBelow }];
}

/** @throws AdedError ADED_BENCH when a bound failed; which ones hold is printed in any case */
export function failUnlessKept(report: object, wanted: readonly Bound[]): void {
  if (wanted.length === 0) return;
  const results = checkBounds(report, wanted);
  process.stderr.write(formatBounds(results));
  const failed = results.filter(({ ok }) => !ok);
  if (failed.length > 0) {
    throw new AdedError("ADED_BENCH", `bounds that failed: ${failed.map(({ bound }) => bound).join(", ")}`);
  }
}

async function write(report: AbReport, { json, csv, md, html }: AbFlags): Promise<void> {
  const text = `${JSON.stringify(report)}\n`;
  if (typeof json === "string") await save(json, text);
  if (csv !== undefined) await save(csv, formatCsv(report));
  if (md !== undefined) await save(md, formatMarkdown(report));
  if (html !== undefined) await save(html, await formatHtml(report));
  process.stdout.write(json === true ? text : formatTable(report));
}

/** `aded bench`: measurements against a running server, or against one that is started for it. */
import { setTimeout as delay } from "node:timers/promises";
import { Command } from "commander";
import { type AbOptions, runAb } from "../bench/ab.ts";
import { formatCsv, formatMarkdown, formatTable } from "../bench/ab-format.ts";
import { type AbReport, reportAb } from "../bench/ab-report.ts";
import { ChatClient } from "../bench/chat-client.ts";
import { DEFAULT_PROMPTS } from "../bench/default-prompts.ts";
import { describeEnvironment } from "../bench/environment.ts";
import { type BenchPrompt, loadPrompts, spread } from "../bench/prompts.ts";
import { reportSameText, runSameText } from "../bench/same-text.ts";
import { loadConfig } from "../config.ts";
import type { Progress } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import { createLog } from "../log.ts";
import { withServer } from "../main.ts";
import type { ProxyStatus } from "../proxy/status.ts";
import { checkFolder, commandLine, integer, save } from "./bench-support.ts";
import { verifyCommand } from "./bench-verify.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";

const LINK_WAIT_MS = 10_000;
const LINK_POLL_MS = 100;

interface AbFlags {
  url?: string;
  config?: string;
  prompts?: string[];
  limit?: number;
  maxTokens: number;
  repeat: number;
  concurrency: number;
  seed: number;
  temperature: number;
  warmup: number;
  model?: string;
  apiKey?: string;
  json?: string | true;
  csv?: string;
  md?: string;
}

function temperature(value: string): number {
  const number = Number(value);
  if (value.trim() === "" || !Number.isFinite(number) || number < 0) {
    throw new AdedError("ADED_USAGE", `--temperature is "${value}"`, {
      hint: "Give a number of at least 0.",
    });
  }
  return number;
}

export function benchCommand(): Command {
  const bench = new Command("bench").description("measure latency and speed (docs/bench.md)");
  bench
    .command("ab")
    .description("answer the same prompts with drafts on and off, and compare")
    .option("--url <url>", "a running server; without it, the one of the config is started and stopped again")
    .option("--config <file>", "the config of the server to start (default: as aded serve)")
    .option(
      "--prompts <files...>",
      "JSONL files: MT-Bench, HumanEval, or {prompt, category}; FILE:N takes N of a file",
    )
    .option("--limit <n>", "most prompts per file, spread evenly over it", integer("--limit", 1))
    .option("--max-tokens <n>", "longest answer, tokens", integer("--max-tokens", 1), 160)
    .option("--repeat <n>", "how often each prompt is measured", integer("--repeat", 1), 1)
    .option("--concurrency <n>", "requests of one arm at once", integer("--concurrency", 1), 1)
    .option("--seed <n>", "for the order of the arms, the sampling and the interval", integer("--seed", 0), 1)
    .option("--temperature <t>", "0: greedy", temperature, 0)
    .option("--warmup <n>", "pairs beforehand that do not count", integer("--warmup", 0), 2)
    .option("--model <name>", "model to ask for (default: the server's own)")
    .option("--api-key <key>", "sent as a bearer token (default: $ADED_API_KEY)")
    .option("--json [file]", "write the whole report as JSON; to stdout without a file")
    .option("--csv <file>", "write one line per request")
    .option("--md <file>", "write the tables as Markdown")
    .action((flags: AbFlags) => benchAb(flags));
  bench
    .command("same-text")
    .description("whether drafts change the text: every difference, and whether it is a near-tie")
    .option("--url <url>", "a running server; without it, the one of the config is started and stopped again")
    .option("--config <file>", "the config of the server to start (default: as aded serve)")
    .option("--prompts <files...>", "JSONL files, as for bench ab")
    .option("--limit <n>", "most prompts per file, spread evenly over it", integer("--limit", 1))
    .option("--max-tokens <n>", "longest answer, tokens", integer("--max-tokens", 1), 160)
    .option("--concurrency <n>", "requests of one arm at once", integer("--concurrency", 1), 1)
    .option("--model <name>", "model to ask for (default: the server's own)")
    .option("--api-key <key>", "sent as a bearer token (default: $ADED_API_KEY)")
    .option("--json [file]", "write the report as JSON; to stdout without a file")
    .action((flags: SameTextFlags) => benchSameText(flags));
  bench.addCommand(verifyCommand());
  return bench;
}

type SameTextFlags = Pick<
  AbFlags,
  "url" | "config" | "prompts" | "limit" | "maxTokens" | "concurrency" | "model" | "apiKey" | "json"
>;

async function benchSameText(flags: SameTextFlags): Promise<void> {
  const prompts = await choosePrompts(flags);
  if (typeof flags.json === "string") await checkFolder(flags.json);
  await withTarget(flags, async (url, apiKey, progress) => {
    const task = progress.task("Requests", "steps");
    const pairs = await runSameText(url, {
      prompts,
      maxTokens: flags.maxTokens,
      concurrency: flags.concurrency,
      model: flags.model,
      apiKey,
      signal: interruptSignal,
      onProgress: (done, total) => task.update(done, total),
    });
    task.end("done");
    const report = reportSameText(pairs);
    const text = `${JSON.stringify(report, null, 1)}\n`;
    if (typeof flags.json === "string") await save(flags.json, text);
    if (flags.json === true) {
      process.stdout.write(text);
      return;
    }
    const noise = report.margin_noise;
    process.stdout.write(
      `${report.same_text} of ${report.n} texts are the same; ${report.near_ties} of the ${report.differences.length} first ` +
        `differences are near-ties (margin at most the largest noise seen)\n` +
        `noise of the margin between the two likeliest tokens, nats: p50 ${show(noise.p50)}, p99 ${show(noise.p99)}, ` +
        `max ${show(noise.max)} over ${noise.positions} positions\n` +
        `change of the reported log-probabilities, nats: p50 ${show(report.logprob_noise.p50)}, ` +
        `p99 ${show(report.logprob_noise.p99)}, max ${show(report.logprob_noise.max)}\n` +
        `tokens per step ${show(report.tokens_per_step)}\n`,
    );
    for (const { id, category, index, off, on, margin, near_tie } of report.differences) {
      process.stdout.write(
        `  ${category} ${id}: token ${index}, ${off} against ${on}, margin ${show(margin)}${near_tie ? "" : "  NOT A NEAR-TIE"}\n`,
      );
    }
  });
}

function show(value: number | null): string {
  return value === null ? "N/A" : value.toPrecision(3);
}

/** The server that --url names, or the config's own, started for the time of `use`. */
async function withTarget(
  flags: Pick<AbFlags, "url" | "config" | "apiKey">,
  use: (url: string, apiKey: string | undefined, progress: Progress) => Promise<void>,
): Promise<void> {
  const progress = createProgress();
  if (flags.url !== undefined) {
    await use(flags.url, flags.apiKey ?? process.env.ADED_API_KEY, progress);
    return;
  }
  // Nobody else knows the address of this server: it needs no key.
  await withServer(
    { ...loadConfig(flags.config), api_keys: [] },
    {
      log: createLog(process.env.ADED_LOG_LEVEL ?? "warn"),
      progress,
      signal: interruptSignal,
      use: async (url) => {
        await draftersConnected(url);
        await use(url, undefined, progress);
      },
    },
  );
}

async function benchAb(flags: AbFlags): Promise<void> {
  const prompts = await choosePrompts(flags);
  for (const path of [flags.json, flags.csv, flags.md]) if (typeof path === "string") await checkFolder(path);
  await withTarget(flags, (url, apiKey, progress) => measure(url, prompts, { ...flags, apiKey }, progress));
}

async function choosePrompts({
  prompts,
  limit,
}: Pick<AbFlags, "prompts" | "limit">): Promise<readonly BenchPrompt[]> {
  if (prompts !== undefined) return loadPrompts(prompts, { limit });
  return spread(DEFAULT_PROMPTS, limit);
}

/** Engines are ready a moment before their drafters; the first pairs shall not run without drafts for that. */
async function draftersConnected(url: string): Promise<void> {
  const client = new ChatClient(url);
  try {
    for (const deadline = performance.now() + LINK_WAIT_MS; performance.now() < deadline; ) {
      const status = (await client.get("/aded/status", interruptSignal)) as Partial<ProxyStatus> | undefined;
      const models = Object.values(status?.models ?? {});
      if (!models.some((model) => model.link === "connecting")) return;
      await delay(LINK_POLL_MS, undefined, { signal: interruptSignal });
    }
  } finally {
    await client.close();
  }
}

/** Measures, and reports whatever was measured, also when interrupted or given up. */
async function measure(
  url: string,
  prompts: readonly BenchPrompt[],
  flags: AbFlags,
  progress: Progress,
): Promise<void> {
  const client = new ChatClient(url, { apiKey: flags.apiKey, connections: flags.concurrency });
  const options: AbOptions = {
    prompts,
    maxTokens: flags.maxTokens,
    repeat: flags.repeat,
    concurrency: flags.concurrency,
    seed: flags.seed,
    temperature: flags.temperature,
    warmup: flags.warmup,
    model: flags.model,
  };
  try {
    const environment = await describeEnvironment(client, {
      command: commandLine(process.argv),
      model: flags.model,
      signal: interruptSignal,
    });
    const task = progress.task("Requests", "steps");
    const run = await runAb(client, options, {
      signal: interruptSignal,
      onProgress: ({ done, total }) => task.update(done, total),
    });
    task.end(run.complete ? "done" : "stopped");
    if (run.complete) environment.aded_status = (await client.get("/aded/status")) ?? null;
    const report = reportAb(run, options, environment);
    await write(report, flags);
    if (run.stopped !== undefined) throw run.stopped;
    if (report.n === 0)
      throw new AdedError("ADED_BENCH", "no pair was answered", { hint: report.notes.at(-1) });
  } finally {
    await client.close();
  }
}

async function write(report: AbReport, { json, csv, md }: AbFlags): Promise<void> {
  const text = `${JSON.stringify(report)}\n`;
  if (typeof json === "string") await save(json, text);
  if (csv !== undefined) await save(csv, formatCsv(report));
  if (md !== undefined) await save(md, formatMarkdown(report));
  process.stdout.write(json === true ? text : formatTable(report));
}

/** `aded bench aa`: does the instrument itself tell the truth on this machine? Equal arms must look equal, a known delay must be found. */
import { Command } from "commander";
import { type AbOptions, runAb } from "../bench/ab.ts";
import { decodeRatio, medianRatio } from "../bench/ab-report.ts";
import { ChatClient } from "../bench/chat-client.ts";
import { DelayProxy } from "../bench/delay-proxy.ts";
import type { BenchPrompt } from "../bench/prompts.ts";
import type { RatioReport } from "../bench/ratio.ts";
import { AdedError } from "../errors.ts";
import { choosePrompts } from "./bench-ab.ts";
import { integer } from "./bench-support.ts";
import { type TargetFlags, targetOptions, withTarget } from "./bench-target.ts";
import { interruptSignal } from "./interrupt.ts";
import { printJson, printLine } from "./report.ts";
import { decimal } from "./values.ts";

interface AaFlags extends TargetFlags {
  prompts?: string[];
  limit?: number;
  runs: number;
  maxTokens: number;
  repeat: number;
  delay: number;
  model?: string;
  json?: boolean;
}

/** Both estimates of one run. */
interface Estimates extends RatioReport {
  median: RatioReport;
}

/** The share of runs that must cover 1 for the instrument to pass: 18 of 20. */
const LEAST_COVERED = 0.9;

export function aaCommand(): Command {
  return targetOptions(
    new Command("aa").description(
      "test the instrument: identical arms must show no difference, an injected delay must be found",
    ),
  )
    .option("--prompts <files...>", "as for bench ab")
    .option("--limit <n>", "most prompts per file", integer("--limit", 1))
    .option("--runs <n>", "A/A runs", integer("--runs", 1), 20)
    .option("--repeat <n>", "how often each prompt is measured per run", integer("--repeat", 1), 1)
    .option("--max-tokens <n>", "longest answer, tokens", integer("--max-tokens", 2), 48)
    .option(
      "--delay <share>",
      "then one arm is made slower by this share; 0: skip that",
      decimal("--delay", 0),
      0.05,
    )
    .option("--json", "print the result as JSON")
    .action((flags: AaFlags) => benchAa(flags));
}

async function benchAa(flags: AaFlags): Promise<void> {
  const prompts = await choosePrompts(flags);
  await withTarget(flags, async (url, apiKey, progress) => {
    const client = new ChatClient(url, { apiKey });
    const task = progress.task("Runs", "steps");
    const runs: Estimates[] = [];
    try {
      for (let run = 0; run < flags.runs; run++) {
        runs.push(await ratioOf(client, client, optionsOf(flags, prompts, run)));
        task.update(runs.length, flags.runs + (flags.delay > 0 ? 1 : 0));
      }
      const delayed = flags.delay > 0 ? await delayedRatio(url, { flags, prompts, apiKey }) : null;
      task.end("done");
      report(runs, delayed, flags);
    } finally {
      await client.close();
    }
  });
}

/** Both arms without drafts: the same requests, the same header. */
function optionsOf(flags: AaFlags, prompts: readonly BenchPrompt[], run: number): AbOptions {
  return {
    prompts,
    maxTokens: flags.maxTokens,
    repeat: flags.repeat,
    concurrency: 1,
    seed: run + 1,
    temperature: 0,
    warmup: 1,
    model: flags.model,
    clock: "client",
    arms: { on: { drafts: "off", model: flags.model }, off: { drafts: "off", model: flags.model } },
  };
}

async function ratioOf(on: ChatClient, off: ChatClient, options: AbOptions): Promise<Estimates> {
  const run = await runAb({ on, off }, options, { signal: interruptSignal });
  if (run.stopped !== undefined) throw run.stopped;
  const interval = { seed: options.seed, level: 0.95 };
  const ratio = decodeRatio(run.samples, interval);
  if (ratio.ci !== null) return { ...ratio, median: medianRatio(run.samples, interval) };
  throw new AdedError("ADED_BENCH", `${ratio.n} pairs give no interval`, {
    hint: "Give at least five prompts.",
  });
}

async function delayedRatio(
  url: string,
  { flags, prompts, apiKey }: { flags: AaFlags; prompts: readonly BenchPrompt[]; apiKey?: string },
): Promise<Estimates> {
  const proxies = [new DelayProxy(url, flags.delay), new DelayProxy(url, 0)];
  const [slow, fast] = await Promise.all(
    proxies.map(async (proxy) => new ChatClient(await proxy.listen(), { apiKey })),
  );
  try {
    // at most 100 pairs are needed to find 5 %
    const repeat = Math.max(1, Math.floor(100 / prompts.length));
    return await ratioOf(slow, fast, { ...optionsOf(flags, prompts.slice(0, 100), flags.runs), repeat });
  } finally {
    await Promise.all([slow, fast].map((one) => one.close()));
    await Promise.all(proxies.map((proxy) => proxy.close()));
  }
}

function covers({ ci }: RatioReport): boolean {
  return ci !== null && ci[0] <= 1 && ci[1] >= 1;
}

function isSlower({ ci }: RatioReport): boolean {
  return ci !== null && ci[1] < 1;
}

function report(runs: readonly Estimates[], delayed: Estimates | null, { delay, json }: AaFlags): void {
  const covered = runs.filter(covers).length;
  const coveredByMedian = runs.filter(({ median }) => covers(median)).length;
  const found = delayed === null ? null : isSlower(delayed) || isSlower(delayed.median);
  const least = Math.floor(LEAST_COVERED * runs.length);
  const ok = covered >= least && coveredByMedian >= least && found !== false;
  if (json) {
    const injected = delayed === null ? null : { share: delay, found, ...delayed };
    printJson({ ok, covered, covered_by_median: coveredByMedian, runs, delay: injected });
  } else {
    for (const [i, run] of runs.entries()) {
      printLine(`run ${i + 1}: ${inWords(run)}, median ${inWords(run.median)}, ${run.n} pairs`);
    }
    printLine(
      `identical arms: the interval covers 1 in ${covered} of ${runs.length} runs, the median's in ${coveredByMedian}`,
    );
    if (delayed !== null) {
      printLine(
        `a delay of ${(delay * 100).toFixed(1)} % is ${found ? "found" : "NOT found"} in ${delayed.n} pairs: ` +
          `${inWords(delayed)}, median ${inWords(delayed.median)}`,
      );
    }
  }
  if (!ok)
    throw new AdedError("ADED_BENCH", "the instrument failed its test", {
      hint: "Close other programs, or give more prompts.",
    });
}

function inWords({ ratio, ci }: RatioReport): string {
  return `${ratio?.toFixed(4)} (${ci?.map((end) => end.toFixed(4)).join(" - ")})`;
}

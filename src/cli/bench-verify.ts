/** `aded bench verify`: what verifying n tokens at once costs, beside the stock build, and whether it changes the logits. */
import { existsSync } from "node:fs";
import { loadavg } from "node:os";
import path from "node:path";
import { Command } from "commander";
import { MAX_WIDTH, runVerify, type VerifyOptions, type VerifySetup } from "../bench/verify.ts";
import { formatVerify } from "../bench/verify-format.ts";
import { chooseModels } from "../bench/verify-models.ts";
import {
  type ReportedModel,
  reportVerify,
  type VerifyReport,
  verifyEnvironment,
} from "../bench/verify-report.ts";
import { readWeights } from "../bench/verify-weights.ts";
import { loadConfig } from "../config.ts";
import { defaultThreads } from "../engine/args.ts";
import { type EngineBuild, ensureEngine } from "../engine/build.ts";
import type { Progress } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import { checkFolder, commandLine, integer, save } from "./bench-support.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";

interface VerifyFlags {
  model?: string[];
  config?: string;
  quantize?: string[];
  threads?: number;
  depth: number;
  depths?: number[];
  widths: number[];
  reps: number;
  seed: number;
  cacheType: string;
  stock: boolean;
  batchInvariant: boolean;
  json?: string | true;
}

export function verifyCommand(): Command {
  return new Command("verify")
    .description(
      "what verifying n tokens at once costs, beside the stock build, and whether it changes the logits",
    )
    .option(
      "--model <models...>",
      "names of the config, known names, GGUF files (default: the config's first)",
    )
    .option("--config <file>", "the config that names models (default: as aded serve)")
    .option("--quantize <types...>", "measure copies of these types (BF16, Q8_0 …), made first if need be")
    .option("--threads <n>", "threads of the engine (default: as aded serve)", integer("--threads", 1))
    .option("--depth <n>", "tokens in the cache", integer("--depth", 0), 256)
    .option(
      "--depths <list>",
      "more depths at which the logits are compared, such as 10,600,3000",
      list("--depths", 0),
    )
    .option(
      "--widths <list>",
      "tokens of a batch",
      list("--widths", 1, MAX_WIDTH),
      [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64],
    )
    .option("--reps <n>", "rounds; 0: compare logits only", integer("--reps", 0), 12)
    .option("--seed <n>", "for the order of measurements and the intervals", integer("--seed", 0), 1)
    .option("--cache-type <type>", "type of the KV cache, such as f16, bf16, q8_0", "f16")
    .option("--no-stock", "without the stock build")
    .option(
      "--no-batch-invariant",
      "the own build without its batch-invariant kernels: shows what they change",
    )
    .option("--json [file]", "write the reports as a JSON list; to stdout without a file")
    .action((flags: VerifyFlags) => benchVerify(flags));
}

/** Parser of integers between commas. */
function list(flag: string, min: number, max = Number.MAX_SAFE_INTEGER): (value: string) => number[] {
  return (value) => {
    const numbers = value.split(",").map(Number);
    if (value.trim() === "" || !numbers.every((n) => Number.isInteger(n) && n >= min && n <= max)) {
      const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
      throw new AdedError("ADED_USAGE", `${flag} is "${value}"`, {
        hint: `Give integers ${range}, such as 8,16.`,
      });
    }
    return ascending(numbers);
  };
}

function ascending(numbers: readonly number[]): number[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}

async function benchVerify(flags: VerifyFlags): Promise<void> {
  if (typeof flags.json === "string") await checkFolder(flags.json);
  const progress = createProgress();
  const work = { signal: interruptSignal, progress };
  const config = loadConfig(flags.config);
  const engine = await ensureEngine(work);
  const stock = flags.stock ? await ensureEngine({ ...work, stock: true }) : undefined;
  const models = await chooseModels({
    ...work,
    config,
    models: flags.model ?? [],
    types: flags.quantize ?? [],
    quantizePath: engine.quantizePath,
  });
  const shared = {
    program: engine.batchCostPath as string,
    own: { libraries: librariesOf(engine), batchInvariant: flags.batchInvariant },
    stock: stock && { libraries: librariesOf(stock), batchInvariant: false },
    threads: flags.threads ?? defaultThreads(),
    cacheType: flags.cacheType,
    signal: interruptSignal,
  };
  const reports: VerifyReport[] = [];
  const failures: unknown[] = [];
  for (const model of models) {
    const setup = { ...shared, modelPath: model.file };
    const { report, stopped } = await measure(model, setup, optionsOf(flags), progress);
    reports.push(report);
    if (stopped !== undefined) failures.push(stopped);
    if (flags.json !== true) process.stdout.write(`${reports.length > 1 ? "\n" : ""}${formatVerify(report)}`);
    if (interruptSignal.aborted) break;
  }
  const text = `${JSON.stringify(reports)}\n`;
  if (typeof flags.json === "string") await save(flags.json, text);
  if (flags.json === true) process.stdout.write(text);
  interruptSignal.throwIfAborted();
  // whatever went wrong with any model fails the command, after all of them were reported
  if (failures.length > 0) throw failures[0];
  failIfDifferent(reports);
}

/** Folder of a build's shared libraries. */
function librariesOf({ serverPath }: EngineBuild): string {
  const folder = path.dirname(serverPath);
  if (["libllama.so", "libllama.dylib"].some((name) => existsSync(path.join(folder, name)))) return folder;
  throw new AdedError("ADED_BENCH", `the engine in ${folder} has no shared libraries`, {
    hint: "Build it without -DBUILD_SHARED_LIBS=OFF in ADED_CMAKE_ARGS: one program measures both builds by their libraries.",
  });
}

function optionsOf(flags: VerifyFlags): VerifyOptions {
  return {
    // the costs of others are told by that of one
    widths: ascending([1, ...flags.widths]),
    depth: flags.depth,
    checkDepths: flags.depths ?? [],
    rounds: flags.reps,
    seed: flags.seed,
  };
}

async function measure(
  model: ReportedModel,
  setup: VerifySetup,
  options: VerifyOptions,
  progress: Progress,
): Promise<{ report: VerifyReport; stopped: unknown }> {
  const environment = verifyEnvironment(commandLine(process.argv), loadavg()[0]);
  const weights = await readWeights(model.file);
  const task = progress.task(model.name, "steps");
  const run = await runVerify(setup, options, ({ done, total, note }) => task.update(done, total, note));
  task.end(run.stopped === undefined ? "done" : interruptSignal.aborted ? "interrupted" : "failed");
  return { report: reportVerify({ run, model, weights, setup, options, environment }), stopped: run.stopped };
}

function failIfDifferent(reports: readonly VerifyReport[]): void {
  const differing = reports.filter(({ identical }) => identical === false).map(({ model }) => model);
  if (differing.length === 0) return;
  throw new AdedError(
    "ADED_BENCH",
    `logits of batches differ from those of one-by-one decoding: ${differing.join(", ")}`,
    { hint: "Drafts can change texts of this model on this machine: see docs/performance.md." },
  );
}

/** `aded bench peers`: this project beside the stock engine, plain and with each of its speculators that need no draft model. */

import { loadavg } from "node:os";
import path from "node:path";
import { Command, Option } from "commander";
import { ChatClient } from "../bench/chat-client.ts";
import { DEFAULT_PROMPTS } from "../bench/default-prompts.ts";
import { type PeerArm, type PeersOptions, reportPeers, runPeers } from "../bench/peers.ts";
import { formatPeers } from "../bench/peers-format.ts";
import { loadPrompts, spread } from "../bench/prompts.ts";
import { verifyEnvironment } from "../bench/verify-report.ts";
import { loadConfig } from "../config.ts";
import { ensureEngine } from "../engine/build.ts";
import { run } from "../engine/child.ts";
import { ensureModel, ensureQuantized } from "../engine/models.ts";
import { EngineProcess } from "../engine/process.ts";
import type { WorkOptions } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import { createLog } from "../log.ts";
import { withServer } from "../main.ts";
import { splitArgs } from "../options.ts";
import { checkFolder, commandLine, save } from "./bench-support.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";
import { atLeast, decimal } from "./values.ts";

interface PeersFlags {
  config?: string;
  model?: string;
  quantize?: string;
  prompts?: string[];
  limit?: number;
  maxTokens: number;
  temperature: number;
  seed: number;
  warmup: number;
  only?: string[];
  arm: PeerArm[];
  stockServer?: string;
  json?: string | true;
}

const OWN = "aded";
const PLAIN = "stock";

export function peersCommand(): Command {
  return new Command("peers")
    .description(
      "answer the same prompts with the stock engine, plain and with its speculators, and with this project",
    )
    .option(
      "--config <file>",
      "the config whose model and arguments all of them get (default: as aded serve)",
    )
    .option("--model <name>", "which of its models (default: the first)")
    .option("--quantize <type>", "a copy of the model in this type (BF16, Q8_0 …), made first if need be")
    .option("--prompts <files...>", "JSONL files, as for bench ab (default: a built-in list)")
    .option("--limit <n>", "most prompts per file, spread evenly over it", atLeast("--limit", 1))
    .option("--max-tokens <n>", "longest answer, tokens", atLeast("--max-tokens", 2), 160)
    .option("--temperature <t>", "0: greedy", decimal("--temperature", 0), 0)
    .option(
      "--seed <n>",
      "for the order of the arms, the sampling and the intervals",
      atLeast("--seed", 0),
      1,
    )
    .option("--warmup <n>", "prompts beforehand that do not count", atLeast("--warmup", 0), 1)
    .option("--only <types...>", "of the engine's speculators only these, such as ngram-simple ngram-mod")
    .addOption(
      new Option("--arm <name=args>", "one more arm: the stock engine with these arguments (repeatable)")
        .argParser((value: string, before: PeerArm[]) => [...before, armOf(value)])
        .default([], "none"),
    )
    .option("--stock-server <file>", "a llama-server to take for the stock engine (default: it is built)")
    .option("--json [file]", "write the report as JSON; to stdout without a file")
    .action((flags: PeersFlags) => benchPeers(flags));
}

function armOf(value: string): PeerArm {
  const at = value.indexOf("=");
  const name = value.slice(0, at).trim();
  if (at > 0 && name !== OWN && name !== PLAIN) {
    return { name, model: name, args: splitArgs(value.slice(at + 1)) };
  }
  throw new AdedError("ADED_USAGE", `--arm is "${value}"`, {
    hint: 'write e.g. --arm "ngram 3=--spec-type ngram-simple --spec-ngram-simple-size-n 3"',
  });
}

/** Names of the speculators that need no draft model, from llama-server's --help. */
export function draftFreeTypes(help: string): string[] {
  const listed = /--spec-type\s+(\S+)/.exec(help)?.[1] ?? "";
  return listed
    .replace(/^\[|\]$/g, "")
    .split(/[,|]/)
    .filter((type) => type.startsWith("ngram"));
}

async function benchPeers(flags: PeersFlags): Promise<void> {
  if (typeof flags.json === "string") await checkFolder(flags.json);
  const progress = createProgress();
  const work: WorkOptions = { signal: interruptSignal, progress };
  const prompts =
    flags.prompts === undefined
      ? spread(DEFAULT_PROMPTS, flags.limit)
      : await loadPrompts(flags.prompts, { limit: flags.limit });
  const config = loadConfig(flags.config);
  const [name, settings] = modelOf(config.models, flags.model);
  const stockPath = flags.stockServer ?? (await ensureEngine({ ...work, stock: true })).serverPath;
  const modelPath = await fileOf(settings.source, flags, config.file, work);
  const arms = await armsFor(stockPath, flags);
  const log = createLog(process.env.ADED_LOG_LEVEL ?? "warn");
  const engines = arms
    .filter(({ name: arm }) => arm !== OWN)
    .map(
      ({ name: arm, args }) =>
        new EngineProcess({
          model: arm,
          serverPath: stockPath,
          modelPath,
          args: [...settings.args, ...args],
          env: settings.env,
          drafts: false,
          log,
        }),
    );
  try {
    for (const engine of engines) {
      interruptSignal.throwIfAborted();
      await engine.start();
    }
    // all stand behind the same proxy, which costs each of them the same
    const models = Object.fromEntries(
      engines.map((engine) => [
        engine.model,
        {
          ...settings,
          source: undefined,
          args: [],
          engine: `unix:${engine.address.socketPath}`,
          aliases: [],
        },
      ]),
    );
    const own = { ...settings, source: `file:${modelPath}`, aliases: [], preload: true };
    const members = [OWN, ...Object.keys(models)];
    const groups = { arms: { members, swap: false, exclusive: true, persistent: false } };
    await withServer(
      { ...config, api_keys: [], groups, models: { [OWN]: own, ...models } },
      { log, ...work, use: (url) => measure(url, name, prompts, arms, flags) },
    );
  } finally {
    await Promise.all(engines.map((engine) => engine.stop(1000)));
  }
}

function modelOf<T extends { source?: string }>(
  models: Record<string, T>,
  wanted: string | undefined,
): [string, T] {
  const entries = Object.entries(models);
  const found = wanted === undefined ? entries[0] : entries.find(([name]) => name === wanted);
  if (found?.[1].source !== undefined) return found;
  throw new AdedError("ADED_USAGE", `the config has no model ${wanted ?? ""} with a source`, {
    hint: "Every arm starts an engine of its own, so the model must be a file or a known name.",
  });
}

async function fileOf(
  source: string | undefined,
  { quantize }: PeersFlags,
  configFile: string | undefined,
  work: WorkOptions,
): Promise<string> {
  const base = configFile === undefined ? undefined : path.dirname(configFile);
  const file = await ensureModel(source as string, { ...work, base });
  if (quantize === undefined) return file;
  const { quantizePath } = await ensureEngine(work);
  return ensureQuantized(file, quantize, { ...work, quantizePath });
}

async function armsFor(stockPath: string, { only, arm }: PeersFlags): Promise<PeerArm[]> {
  const { stdout } = await run(stockPath, ["--help"], { signal: interruptSignal });
  const types = draftFreeTypes(stdout);
  const unknown = only?.find((type) => !types.includes(type));
  if (unknown !== undefined) {
    throw new AdedError("ADED_USAGE", `the engine has no speculator ${unknown}`, {
      hint: `it has ${types.join(", ")}`,
    });
  }
  return [
    { name: PLAIN, model: PLAIN, args: [] },
    ...(only ?? types).map((type) => ({ name: type, model: type, args: ["--spec-type", type] })),
    ...arm,
    { name: OWN, model: OWN, args: [] },
  ];
}

async function measure(
  url: string,
  model: string,
  prompts: PeersOptions["prompts"],
  arms: readonly PeerArm[],
  flags: PeersFlags,
): Promise<void> {
  const { maxTokens, temperature, seed, warmup, json } = flags;
  const options: PeersOptions = { arms, prompts, maxTokens, temperature, seed, warmup };
  const client = new ChatClient(url);
  const task = createProgress().task("Requests", "steps");
  const environment = verifyEnvironment(commandLine(process.argv), loadavg()[0]);
  try {
    const done = await runPeers(client, options, {
      signal: interruptSignal,
      onProgress: (at, total, note) => task.update(at, total, note),
    });
    task.end(done.stopped === undefined ? "done" : "stopped");
    const report = reportPeers(done, options, OWN);
    const text = `${JSON.stringify({ ...report, model, max_tokens: maxTokens, temperature, seed, environment }, null, 1)}\n`;
    if (typeof json === "string") await save(json, text);
    process.stdout.write(json === true ? text : formatPeers(report));
    if (done.stopped !== undefined) throw done.stopped;
  } finally {
    await client.close();
  }
}

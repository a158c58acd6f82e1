/** `aded doctor`: what is wrong on this machine, and how to mend it. */
import { accessSync, constants, existsSync, mkdirSync, statfsSync } from "node:fs";
import path from "node:path";
import { Command } from "commander";
import { type LoadedConfig, loadConfig } from "../config.ts";
import { defaultThreads } from "../engine/args.ts";
import { findEngine } from "../engine/build.ts";
import { type Measures, readMeasures } from "../engine/measures.ts";
import { findKnownFile, parseSource } from "../engine/models.ts";
import { checkVersion } from "../engine/source.ts";
import {
  buildTools,
  downloadTools,
  findProgram,
  installHint,
  missingTools,
  toolNames,
} from "../engine/tools.ts";
import { AdedError, messageOf } from "../errors.ts";
import { adedHome, homePath } from "../home.ts";
import type { ModelConfig } from "../options.ts";
import { availableMemory, estimateNeed, offloads, readShape } from "../swap/memory.ts";
import { interruptSignal } from "./interrupt.ts";
import { printJson, printLine } from "./report.ts";

interface Check {
  name: string;
  /** fail: ADED can't run; warn: it can, but less well, or something is still to be done. */
  status: "ok" | "warn" | "fail";
  detail: string;
  /** How to mend it. */
  hint?: string;
}

const SPACE_BYTES = 3e9;

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("say what is wrong on this machine and how to mend it; status 1 if something is")
    .option("--config <file>", "config file to check (default: as aded serve)")
    .option("--json", "print as JSON")
    .action(async (flags: { config?: string; json?: boolean }) => {
      const checks = await examine(flags.config);
      if (flags.json) printJson({ ok: checks.every(({ status }) => status !== "fail"), checks });
      else for (const check of checks) printCheck(check);
      if (checks.some(({ status }) => status === "fail")) process.exitCode = 1;
    });
}

function printCheck({ name, status, detail, hint }: Check): void {
  printLine(`${status.padEnd(5)}${name}: ${detail}`);
  if (hint) printLine(`     ${hint.replaceAll("\n", "\n     ")}`);
}

async function examine(config?: string): Promise<Check[]> {
  return [
    { name: "node", status: "ok", detail: process.version },
    await checkTools(),
    checkCcache(),
    await guarded("engine source", async () => ({
      detail: `llama.cpp ${await checkVersion()}, as the patches want it`,
    })),
    checkHome(),
    await guarded("config", async () => {
      const loaded = loadConfig(config);
      return { detail: `${loaded.file ?? "defaults"}: ${Object.keys(loaded.models).join(", ")}` };
    }),
    await guarded("engine", async () => {
      const build = await findEngine({ signal: interruptSignal });
      if (build) return { detail: build.serverPath };
      return {
        status: "warn",
        detail: "not built yet",
        hint: "npm start builds it, or: npx aded engine build",
      };
    }),
    await guarded("default model", async () => {
      const file = findKnownFile();
      if (file) return { detail: file };
      return {
        status: "warn",
        detail: "not fetched yet",
        hint: "npm start fetches it, or: npx aded models pull",
      };
    }),
    checkExactness(),
    ...(await checkModels(config)),
    { name: "threads", status: "ok", detail: `${defaultThreads()} for each engine` },
  ];
}

/** Whether the file of each model is there, and whether it fits. */
async function checkModels(file?: string): Promise<Check[]> {
  let config: LoadedConfig;
  try {
    config = loadConfig(file);
  } catch {
    return []; // the check of the config tells
  }
  const base = config.file === undefined ? undefined : path.dirname(config.file);
  const checks: Check[] = [];
  for (const [name, settings] of Object.entries(config.models)) {
    checks.push(
      await guarded(`model ${name}`, () => lookAtModel(settings, base, config.swap.memory_reserve)),
    );
  }
  return checks;
}

async function lookAtModel(
  settings: ModelConfig,
  base: string | undefined,
  reserve: number,
): Promise<Outcome> {
  const { source, engine, args, memory } = settings;
  if (source === undefined) return { detail: `runs at ${engine}` };
  const parsed = parseSource(source, base);
  const local =
    parsed.kind === "file" ? parsed.path : parsed.kind === "pypi" ? homePath("models", parsed.file) : "";
  if (!existsSync(local)) {
    if (parsed.kind === "file") {
      return { status: "fail", detail: `there is no file ${local}`, hint: "check the path after file:" };
    }
    return {
      status: "warn",
      detail: "not fetched yet, or not known",
      hint: `npx aded models pull '${source}'`,
    };
  }
  const read = await readShape(local);
  const available = availableMemory();
  if (read === undefined || available === undefined || offloads(args)) return { detail: local };
  const need = memory ?? estimateNeed(read.shape, read.weights, args).total;
  const figures = `needs about ${Math.ceil(need / 2 ** 20)} MiB, ${Math.floor(available / 2 ** 20)} MiB are available`;
  if (need <= available - reserve) return { detail: `${local}, ${figures}` };
  return {
    status: "warn",
    detail: figures,
    hint: "give it a smaller context (-c) or cache type, or a smaller file",
  };
}

type Outcome = Pick<Check, "detail" | "hint"> & { status?: Check["status"] };

async function guarded(name: string, look: () => Promise<Outcome>): Promise<Check> {
  try {
    return { name, status: "ok", ...(await look()) };
  } catch (error) {
    interruptSignal.throwIfAborted();
    const hint = error instanceof AdedError ? error.hint : undefined;
    return { name, status: "fail", detail: messageOf(error), hint };
  }
}

async function checkTools(): Promise<Check> {
  const missing = await missingTools([...buildTools, ...downloadTools], interruptSignal);
  if (missing.length === 0)
    return { name: "tools", status: "ok", detail: "compiler, cmake, git, python3 and pip are there" };
  return {
    name: "tools",
    status: "fail",
    detail: `missing: ${toolNames(missing)}`,
    hint: installHint(missing),
  };
}

/** What the engines found out at their start: do batches give the logits of single tokens? */
function checkExactness(): Check {
  const known = readMeasures();
  const name = "same text";
  if (known.length === 0)
    return { name, status: "ok", detail: "not looked at yet, an engine does so when it starts" };
  const isExact = ({ tested, exact }: Measures): boolean => tested.length === exact.length;
  const lines = known
    .filter((measures) => !isExact(measures))
    .map(({ model, invariant, tested, exact, noise }) => {
      const kernels = invariant ? "" : " with --no-batch-invariant";
      return `${model}${kernels}: of batches of ${tested.join(", ")} tokens those of ${exact.join(", ") || "none"} are exact, noise ${noise.toExponential(1)}`;
    });
  const exact = new Set(known.filter(isExact).map(({ model }) => model));
  if (exact.size > 0) lines.unshift(`batches give the logits of single tokens: ${[...exact].join(", ")}`);
  // who switched the kernels off knows
  const status = known.every((measures) => isExact(measures) || !measures.invariant) ? "ok" : "warn";
  const detail = [...new Set(lines)].join("; ");
  if (status === "ok") return { name, status, detail };
  return {
    name,
    status,
    detail,
    hint: "on a CPU, leave the batch-invariant kernels on (no --no-batch-invariant, -fa on); on a GPU, docs/protocol.md, 1.6 says what holds",
  };
}

function checkCcache(): Check {
  const file = findProgram("ccache");
  if (file) return { name: "ccache", status: "ok", detail: file };
  return { name: "ccache", status: "ok", detail: "not there; with it, building again takes seconds" };
}

function checkHome(): Check {
  const home = adedHome();
  try {
    mkdirSync(home, { recursive: true });
    accessSync(home, constants.W_OK);
    const { bavail, bsize } = statfsSync(home);
    const free = bavail * bsize;
    const detail = `${home}, ${(free / 1e9).toFixed(1)} GB free`;
    if (free >= SPACE_BYTES) return { name: "ADED_HOME", status: "ok", detail };
    return {
      name: "ADED_HOME",
      status: "warn",
      detail,
      hint: "building the engine takes about 1 GB, models come on top",
    };
  } catch (error) {
    return {
      name: "ADED_HOME",
      status: "fail",
      detail: messageOf(error),
      hint: "set ADED_HOME to a folder that can be written to",
    };
  }
}

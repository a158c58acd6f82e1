/** `aded eval humaneval`: samples in the original's format, speed of both arms, and pass@k where running code is allowed. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { Command } from "commander";
import { type Arm, ChatClient } from "../bench/chat-client.ts";
import { describeEnvironment, modelTitle } from "../bench/environment.ts";
import { spread } from "../bench/prompts.ts";
import type { Progress } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import {
  type CodeEntry,
  completionOf,
  type HumanEvalTask,
  loadTasks,
  meanPassAtK,
  programOf,
  runHumanEval,
} from "../eval/humaneval.ts";
import { Journal, jsonLines, readJsonLines } from "../eval/journal.ts";
import { evalReport, speedLine } from "../eval/report.ts";
import { Sandbox } from "../eval/sandbox.ts";
import { commandLine, integer, save } from "./bench-support.ts";
import { type TargetFlags, targetOptions, withTarget } from "./bench-target.ts";
import { interruptSignal } from "./interrupt.ts";
import { printJson, printLine } from "./report.ts";
import { decimal } from "./values.ts";

interface CodeFlags extends TargetFlags {
  tasks: string;
  limit?: number;
  out: string;
  model?: string;
  maxTokens: number;
  temperature: number;
  topP?: number;
  samples: number;
  k?: string[];
  seed: number;
  timeout: number;
  check?: string;
  allowCodeExecution?: boolean;
  json?: boolean;
}

export function humanEvalCommand(): Command {
  return targetOptions(
    new Command("humaneval")
      .description("complete HumanEval's functions, with drafts and without, and check them")
      .requiredOption("--tasks <file>", "HumanEval.jsonl")
      .option("--out <folder>", "where samples, results and journal go", "humaneval")
      .option("--limit <n>", "that many tasks, spread evenly", integer("--limit", 1)),
  )
    .option("--max-tokens <n>", "longest answer, tokens", integer("--max-tokens", 1), 512)
    .option("--temperature <t>", "0: greedy; more for several samples", decimal("--temperature", 0), 0)
    .option("--top-p <p>", "nucleus sampling", decimal("--top-p", 0))
    .option("--samples <n>", "samples per task", integer("--samples", 1), 1)
    .option(
      "--k <list...>",
      "pass@k for these k (default: 1, and 10 and 100 where there are as many samples)",
    )
    .option("--seed <n>", "for sampling and the order of the arms", integer("--seed", 0), 1)
    .option("--allow-code-execution", "run what the model wrote, in a sandbox; without it nothing is checked")
    .option("--timeout <s>", "seconds for each program", decimal("--timeout", 0.1), 3)
    .option("--check <file>", "only check this samples file; nothing is asked")
    .option("--json", "print the report as JSON")
    .action((flags: CodeFlags) => evalHumanEval(flags));
}

const REFUSED = new AdedError("ADED_USAGE", "checking means running code that a model wrote", {
  hint: "If that is all right on this machine, say --allow-code-execution. docs/eval.md tells what the sandbox keeps out.",
});

async function evalHumanEval(flags: CodeFlags): Promise<void> {
  const all = await loadTasks(flags.tasks);
  if (flags.check !== undefined) {
    if (!flags.allowCodeExecution) throw REFUSED;
    const samples = (await readJsonLines(flags.check)).map(({ task_id, completion }) => ({
      task_id: String(task_id),
      completion: String(completion),
    }));
    const checked = await check(samples, all, flags, `${flags.check}_results.jsonl`);
    if (flags.json) printJson(checked);
    else printLine(passLine(checked));
    return;
  }
  const tasks = spread(all, flags.limit);
  await mkdir(flags.out, { recursive: true });
  await withTarget(flags, async (url, apiKey, progress) => {
    const client = new ChatClient(url, { apiKey });
    try {
      await answer(client, tasks, flags, progress);
    } finally {
      await client.close();
    }
  });
}

async function answer(
  client: ChatClient,
  tasks: readonly HumanEvalTask[],
  flags: CodeFlags,
  progress: Progress,
): Promise<void> {
  const { maxTokens, seed, temperature, topP, model, out } = flags;
  const environment = await describeEnvironment(client, {
    command: commandLine(process.argv),
    model,
    signal: interruptSignal,
  });
  const journal = await Journal.open<CodeEntry>(path.join(out, "humaneval.journal.jsonl"), {
    eval: "humaneval",
    model: environment.engine.model,
    maxTokens,
    seed,
    temperature,
    topP,
  });
  const task = progress.task("Tasks", "steps");
  await runHumanEval(client, journal, {
    tasks,
    samples: flags.samples,
    maxTokens,
    seed,
    temperature,
    topP,
    model,
    signal: interruptSignal,
    onProgress: (done, total) => task.update(done, total),
  });
  task.end("done");
  const wanted = new Map(tasks.map((entry) => [entry.task_id, entry]));
  const entries = journal.entries.filter(
    ({ task_id, index }) => wanted.has(task_id) && index < flags.samples,
  );
  const samplesOf = (arm: Arm) =>
    entries.flatMap(({ task_id, samples }) => {
      const found = wanted.get(task_id);
      const sample = samples.find((one) => one.arm === arm);
      return found === undefined || sample === undefined
        ? []
        : [{ task_id, completion: completionOf(found, sample.text) }];
    });
  const samples = samplesOf("on");
  const file = path.join(out, "samples.jsonl");
  await save(file, jsonLines(samples));
  await save(path.join(out, "samples-plain.jsonl"), jsonLines(samplesOf("off")));
  const speed = evalReport(
    {
      samples: entries.flatMap((entry) => entry.samples),
      complete: true,
      maxTokens,
      seed,
      temperature,
      model,
    },
    environment,
  );
  const checked = flags.allowCodeExecution
    ? await check(samples, tasks, flags, `${file}_results.jsonl`)
    : undefined;
  const name = modelTitle(environment.engine);
  const figures = {
    eval: "humaneval",
    model: name,
    tasks: tasks.length,
    ...checked,
    speed,
  };
  await save(path.join(out, "humaneval.report.json"), `${JSON.stringify(figures)}\n`);
  if (flags.json) {
    printJson({ ...figures, speed: { ...speed, samples: undefined } });
    return;
  }
  printLine(`HumanEval, ${name ?? "a model"}: ${samples.length} samples; ${speedLine(speed)}`);
  printLine(
    checked === undefined ? `not checked: ${REFUSED.message} (--allow-code-execution)` : passLine(checked),
  );
  printLine(`samples: ${file}`);
}

interface Checked {
  passed: number;
  samples: number;
  pass_at: Record<string, number>;
  sandbox: { network: boolean; user: boolean };
}

function passLine({ passed, samples, pass_at, sandbox }: Checked): string {
  const rates = Object.entries(pass_at).map(([k, rate]) => `pass@${k} ${(rate * 100).toFixed(2)} %`);
  const open = sandbox.network ? "" : " (this platform could not keep the network from the programs)";
  return `${rates.join(", ")}; ${passed} of ${samples} samples passed${open}`;
}

async function check(
  samples: readonly { task_id: string; completion: string }[],
  tasks: readonly HumanEvalTask[],
  flags: CodeFlags,
  resultFile: string,
): Promise<Checked> {
  const byId = new Map(tasks.map((task) => [task.task_id, task]));
  const sandbox = await Sandbox.open({ timeoutS: flags.timeout, signal: interruptSignal });
  const results = new Map<string, boolean[]>();
  const lines: object[] = [];
  for (const { task_id, completion } of samples) {
    const task = byId.get(task_id);
    if (task === undefined) {
      throw new AdedError("ADED_EVAL", `the samples hold "${task_id}", which is no task`, {
        hint: "Name the tasks that belong to the samples.",
      });
    }
    const { passed, result } = await sandbox.run(programOf(task, completion));
    results.set(task_id, [...(results.get(task_id) ?? []), passed]);
    lines.push({ task_id, completion, result, passed });
  }
  await save(resultFile, jsonLines(lines));
  const pass_at: Record<string, number> = {};
  for (const k of (flags.k ?? ["1", "10", "100"]).map(integer("--k", 1))) {
    const rate = meanPassAtK(results, k);
    if (rate !== null) pass_at[k] = rate;
  }
  const passed = [...results.values()].flat().filter(Boolean).length;
  return { passed, samples: samples.length, pass_at, sandbox: sandbox.isolation };
}

/** `aded eval mt-bench`: answers in FastChat's format, speed of both arms, and a judge if one is named. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { Command } from "commander";
import { ChatClient } from "../bench/chat-client.ts";
import { describeEnvironment } from "../bench/environment.ts";
import { spread } from "../bench/prompts.ts";
import type { Progress } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import { Journal, jsonLines, readJsonLines } from "../eval/journal.ts";
import {
  type JudgeOptions,
  judgePair,
  judgeSingle,
  type PairJudgment,
  type SingleJudgment,
  scoresOf,
  verdictOf,
} from "../eval/judge.ts";
import {
  answersOf,
  loadQuestions,
  type MtAnswer,
  type MtEntry,
  type MtQuestion,
  runMtBench,
} from "../eval/mt-bench.ts";
import { evalReport, speedLine } from "../eval/report.ts";
import { commandLine, integer, save } from "./bench-support.ts";
import { type TargetFlags, targetOptions, withTarget } from "./bench-target.ts";
import { interruptSignal } from "./interrupt.ts";
import { printJson, printLine } from "./report.ts";
import { decimal } from "./values.ts";

interface MtFlags extends TargetFlags {
  questions: string;
  limit?: number;
  out: string;
  modelId?: string;
  model?: string;
  maxTokens: number;
  temperature?: number;
  seed: number;
  judge?: string;
  judgeModel?: string;
  judgeApiKey?: string;
  judgeMode: "single" | "pairwise";
  against?: string;
  json?: boolean;
}

export function mtBenchCommand(): Command {
  return targetOptions(
    new Command("mt-bench")
      .description("answer MT-Bench's questions, two turns each, with drafts and without")
      .requiredOption("--questions <file>", "FastChat's question.jsonl")
      .option("--out <folder>", "where answers, journal and judgments go", "mt-bench")
      .option("--limit <n>", "that many questions, spread evenly", integer("--limit", 1)),
  )
    .option("--model-id <id>", "name in the answer files (default: the model's)")
    .option("--max-tokens <n>", "longest answer of a turn, tokens", integer("--max-tokens", 1), 1024)
    .option(
      "--temperature <t>",
      "for every question (default: FastChat's, by category)",
      decimal("--temperature", 0),
    )
    .option("--seed <n>", "for sampling and the order of the arms", integer("--seed", 0), 1)
    .option("--judge <url>", "an OpenAI-compatible server that judges the answers")
    .option("--judge-model <name>", "its model")
    .option("--judge-api-key <key>", "its key (default: $OPENAI_API_KEY)")
    .option(
      "--judge-mode <mode>",
      "single: grades 1 to 10; pairwise: against other answers, both orders",
      mode,
      "single",
    )
    .option("--against <file>", "with pairwise: another model's answers (default: this run's without drafts)")
    .option("--json", "print the report as JSON")
    .action((flags: MtFlags) => evalMtBench(flags));
}

function mode(value: string): "single" | "pairwise" {
  if (value === "single" || value === "pairwise") return value;
  throw new AdedError("ADED_USAGE", `--judge-mode is "${value}"`, { hint: "Give single or pairwise." });
}

async function evalMtBench(flags: MtFlags): Promise<void> {
  const questions = spread(await loadQuestions(flags.questions), flags.limit);
  for (const folder of ["model_answer", "model_judgment"]) {
    await mkdir(path.join(flags.out, folder), { recursive: true });
  }
  await withTarget(flags, async (url, apiKey, progress) => {
    const client = new ChatClient(url, { apiKey });
    try {
      await answer(client, questions, flags, progress);
    } finally {
      await client.close();
    }
  });
}

async function answer(
  client: ChatClient,
  questions: readonly MtQuestion[],
  flags: MtFlags,
  progress: Progress,
): Promise<void> {
  const { maxTokens, seed, temperature, model, out } = flags;
  const environment = await describeEnvironment(client, {
    command: commandLine(process.argv),
    model,
    signal: interruptSignal,
  });
  const modelId = fileName(flags.modelId ?? model ?? environment.engine.model ?? "model");
  const journal = await Journal.open<MtEntry>(path.join(out, "mt-bench.journal.jsonl"), {
    eval: "mt-bench",
    model: modelId,
    maxTokens,
    seed,
    temperature,
  });
  const task = progress.task("Questions", "steps");
  const files = (["on", "off"] as const).map((arm) => ({
    arm,
    id: arm === "on" ? modelId : `${modelId}-plain`,
  }));
  try {
    await runMtBench(client, journal, {
      questions,
      maxTokens,
      seed,
      temperature,
      model,
      signal: interruptSignal,
      onProgress: (done, total) => task.update(done, total),
    });
    task.end("done");
  } finally {
    for (const { arm, id } of files) {
      await save(
        path.join(out, "model_answer", `${id}.jsonl`),
        jsonLines(answersOf(journal.entries, arm, id)),
      );
    }
  }
  const asked = new Set(questions.map(({ question_id }) => question_id));
  const entries = journal.entries.filter(({ question_id }) => asked.has(question_id));
  const report = evalReport(
    {
      samples: entries.flatMap(({ samples }) => samples),
      complete: true,
      maxTokens,
      seed,
      temperature: temperature ?? 0.7,
      model,
    },
    environment,
  );
  const answers = files.map(({ arm, id }) => answersOf(entries, arm, id));
  const judged = flags.judge === undefined ? undefined : await judge(questions, answers, flags, progress);
  const figures = { eval: "mt-bench", model: modelId, questions: entries.length, ...judged, speed: report };
  await save(path.join(out, "mt-bench.report.json"), `${JSON.stringify(figures)}\n`);
  if (flags.json) {
    printJson({ ...figures, speed: { ...report, samples: undefined } });
    return;
  }
  printLine(`MT-Bench, ${modelId}: ${entries.length} questions; ${speedLine(report)}`);
  for (const [name, { ratio, ci }] of Object.entries(report.categories)) {
    const interval = ci === null ? "" : ` (${ci[0].toFixed(3)} - ${ci[1].toFixed(3)})`;
    printLine(`  ${name}: ${ratio === null ? "N/A" : ratio.toFixed(3)}${interval}`);
  }
  if (judged !== undefined) printLine(`judgments: ${JSON.stringify(judged)}`);
  printLine(`answers: ${files.map(({ id }) => path.join(out, "model_answer", `${id}.jsonl`)).join(", ")}`);
}

/** Safe as a part of a path. */
function fileName(name: string): string {
  return (
    path
      .basename(name)
      .replace(/\.gguf$/, "")
      .replace(/[^\w.-]+/g, "_") || "model"
  );
}

async function judge(
  questions: readonly MtQuestion[],
  [on, off]: readonly MtAnswer[][],
  flags: MtFlags,
  progress: Progress,
): Promise<object> {
  const client = new ChatClient(flags.judge ?? "", {
    apiKey: flags.judgeApiKey ?? process.env.OPENAI_API_KEY,
  });
  const options: JudgeOptions = { client, model: flags.judgeModel, signal: interruptSignal };
  const task = progress.task("Judgments", "steps");
  const judgeName = fileName(flags.judgeModel ?? "judge");
  const file = path.join(flags.out, "model_judgment", `${judgeName}_${flags.judgeMode}.jsonl`);
  const answersFrom =
    flags.against === undefined ? off : ((await readJsonLines(flags.against)) as unknown as MtAnswer[]);
  const byId = (list: readonly MtAnswer[]) => new Map(list.map((entry) => [entry.question_id, entry]));
  const [mine, others] = [byId(on), byId(answersFrom)];
  const journal = await Journal.open<SingleJudgment | PairJudgment>(`${file}.journal`, {
    judge: judgeName,
    mode: flags.judgeMode,
    answers: on.map(({ answer_id }) => answer_id),
    against:
      flags.judgeMode === "pairwise" ? [...others.values()].map(({ answer_id }) => answer_id) : undefined,
  });
  const done = new Set(journal.entries.map(({ question_id, turn }) => `${question_id} ${turn}`));
  const total = questions.reduce((sum, { turns }) => sum + turns.length, 0);
  try {
    for (const question of questions) {
      const [answer, other] = [mine.get(question.question_id), others.get(question.question_id)];
      if (answer === undefined || (flags.judgeMode === "pairwise" && other === undefined)) continue;
      for (let turn = 1; turn <= question.turns.length; turn++) {
        if (done.has(`${question.question_id} ${turn}`)) continue;
        const judgment =
          flags.judgeMode === "single" || other === undefined
            ? await judgeSingle(question, answer, turn, options)
            : await judgePair(question, [answer, other], turn, options);
        await journal.append(judgment);
        task.update(journal.entries.length, total);
      }
    }
    task.end("done");
  } finally {
    await save(file, jsonLines(journal.entries));
    await client.close();
  }
  if (flags.judgeMode === "single") {
    return { scores: scoresOf(journal.entries as SingleJudgment[], questions) };
  }
  const wins = { model_1: 0, model_2: 0, tie: 0, error: 0 };
  for (const entry of journal.entries as PairJudgment[]) wins[verdictOf(entry)]++;
  return { pairwise: wins };
}

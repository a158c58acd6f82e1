/** `aded corpus grow`: a running server, or one started for it, writes its own corpus. */
import { existsSync } from "node:fs";
import path from "node:path";
import { Command, Option } from "commander";
import { FORMATS } from "../corpus/formats.ts";
import { type GrowReport, growCorpus } from "../corpus/grow.ts";
import { GrowClient } from "../corpus/grow-client.ts";
import { type GrowFormat, growPrompts } from "../corpus/grow-prompts.ts";
import { readVocabulary } from "../corpus/vocabulary.ts";
import { AdedError } from "../errors.ts";
import { type TargetFlags, targetOptions, withTarget } from "./bench-target.ts";
import { interruptSignal } from "./interrupt.ts";
import { printJson, printLine } from "./report.ts";
import { atLeast, decimal } from "./values.ts";

interface GrowFlags extends TargetFlags {
  out: string;
  format: GrowFormat;
  model?: string;
  modelFile?: string;
  maxTokens: number;
  repeat: number;
  temperature: number;
  topK: number;
  tokens?: number;
  minutes?: number;
  always?: boolean;
  json?: boolean;
}

export function growCommand(): Command {
  return targetOptions(
    new Command("grow")
      .description("let the served model write its own corpus while it is idle; goes on where it stopped")
      .argument("<files...>", "prompts (JSONL: MT-Bench, HumanEval, {prompt}), or texts to take prompts from")
      .requiredOption("--out <file>", "the corpus file to make; FILE.grow beside it keeps what is unfinished")
      .addOption(
        new Option("--format <format>", "what the files hold")
          .choices(["prompts", ...FORMATS])
          .default("prompts"),
      ),
  )
    .option("--model-file <file>", "its GGUF file (default: what the server says)")
    .option("--max-tokens <n>", "longest answer, tokens", atLeast("--max-tokens", 1), 256)
    .option("--repeat <n>", "answers per prompt: one greedy, the others sampled", atLeast("--repeat", 1), 1)
    .option("--temperature <t>", "of the sampled answers", decimal("--temperature", 0), 0.8)
    .option("--top-k <k>", "likeliest tokens that are counted at each position", atLeast("--top-k", 1), 12)
    .option("--tokens <n>", "stop after that many tokens", atLeast("--tokens", 1))
    .option("--minutes <n>", "stop after that time", decimal("--minutes", 0))
    .option("--always", "also while the server answers others")
    .option("--json", "report as JSON")
    .action(async (files: string[], flags: GrowFlags) => {
      const prompts = await growPrompts(files, flags.format, interruptSignal);
      const report = await withTarget(flags, async (url, apiKey, progress) => {
        const client = new GrowClient(url, { model: flags.model, apiKey });
        try {
          const modelPath = await modelFile(client, flags);
          return await growCorpus(client, {
            prompts,
            source: files.join(", "),
            out: flags.out,
            vocabulary: await readVocabulary(modelPath, interruptSignal),
            model: path.basename(modelPath),
            maxTokens: flags.maxTokens,
            repeat: flags.repeat,
            temperature: flags.temperature,
            topK: flags.topK,
            budgetTokens: flags.tokens,
            budgetMs: flags.minutes === undefined ? undefined : flags.minutes * 60_000,
            onlyIdle: !flags.always,
            signal: interruptSignal,
            progress,
          });
        } finally {
          await client.close();
        }
      });
      if (flags.json) printJson(report);
      else printGrowth(report);
    });
}

function printGrowth(report: GrowReport): void {
  printLine(
    `${report.out}: ${report.answers} answers, ${report.tokens} tokens, ${report.rows} rows` +
      `${report.complete ? "" : "; the budget is spent, the same command with a larger one goes on"}` +
      `${report.yielded > 0 ? `; stepped aside ${report.yielded} times` : ""} (${report.seconds.toFixed(0)} s)`,
  );
}

async function modelFile(client: GrowClient, { modelFile }: GrowFlags): Promise<string> {
  const file = modelFile ?? (await client.modelPath(interruptSignal));
  if (file !== undefined && existsSync(file)) return file;
  throw new AdedError("ADED_CORPUS", `the server's model file ${file ?? ""} is not on this machine`, {
    hint: "name a GGUF file of the same model with --model-file: its vocabulary is needed",
  });
}

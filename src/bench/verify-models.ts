/** Which model files `aded bench verify` measures: names of the config or known ones, files, requantised copies. */
import { existsSync } from "node:fs";
import path from "node:path";
import type { LoadedConfig } from "../config.ts";
import { ensureModel, ensureQuantized } from "../engine/models.ts";
import type { WorkOptions } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import type { ReportedModel } from "./verify-report.ts";

export interface ModelChoice extends WorkOptions {
  config: LoadedConfig;
  /** Empty: the config's first model that ADED starts itself. */
  models: readonly string[];
  /** Types of llama-quantize: copies of these types instead of the models themselves. Empty: the models. */
  types: readonly string[];
  /** Path of llama-quantize. */
  quantizePath: string;
}

/** Fetches and converts what is missing. @throws AdedError ADED_MODEL_UNKNOWN and those of fetching */
export async function chooseModels(choice: ModelChoice): Promise<ReportedModel[]> {
  const { config, models, types, quantizePath, signal, progress } = choice;
  const work = { signal, progress };
  const chosen: ReportedModel[] = [];
  for (const asked of models.length > 0 ? models : [firstOf(config)]) {
    const file = await fileOf(asked, config, work);
    const name = asked in config.models || !isFile(asked) ? asked : path.basename(asked, ".gguf");
    if (types.length === 0) chosen.push({ name, file });
    for (const type of types) {
      const copy = await ensureQuantized(file, type, { ...work, quantizePath });
      chosen.push({ name: `${name}.${type.toUpperCase()}`, file: copy });
    }
  }
  return chosen;
}

function firstOf(config: LoadedConfig): string {
  const first = Object.entries(config.models).find(([, { source }]) => source !== undefined);
  if (first) return first[0];
  throw new AdedError("ADED_MODEL_UNKNOWN", "no model of the config has a source", {
    hint: "name a GGUF file with --model",
  });
}

async function fileOf(asked: string, config: LoadedConfig, work: WorkOptions): Promise<string> {
  const named = Object.entries(config.models).find(
    ([name, { aliases }]) => name === asked || aliases.includes(asked),
  );
  if (named) {
    const { source } = named[1];
    if (source === undefined) {
      throw new AdedError(
        "ADED_MODEL_UNKNOWN",
        `${asked} runs in an engine of its own, so its file is not known`,
        {
          hint: "name the GGUF file with --model",
        },
      );
    }
    const base = config.file === undefined ? undefined : path.dirname(config.file);
    return ensureModel(source, { ...work, base });
  }
  if (existsSync(asked)) return path.resolve(asked);
  if (isFile(asked)) {
    throw new AdedError("ADED_MODEL_UNKNOWN", `there is no model file ${path.resolve(asked)}`, {
      hint: `check the path; models of the config: ${Object.keys(config.models).join(", ")}`,
    });
  }
  return ensureModel(asked, work);
}

/** Whether it is meant as a path. */
function isFile(asked: string): boolean {
  return asked.endsWith(".gguf") || existsSync(asked);
}

/** The engine that a model of the config file asks for. */
import type { Log } from "../log.ts";
import type { ModelConfig } from "../options.ts";
import type { Engine } from "./engine.ts";
import { EngineProcess } from "./process.ts";
import { RemoteEngine } from "./remote.ts";

export interface CreateEngineOptions {
  /** Name of the model. */
  model: string;
  settings: ModelConfig;
  /** Path of llama-server; needed unless `settings.engine` names one that runs. */
  serverPath?: string;
  /** Path of the model file; needed likewise. */
  modelPath?: string;
  log: Log;
  /** Gets whatever the engine prints. */
  output?: (chunk: Buffer) => void;
}

/** An engine that is not started yet. */
export function createEngine(options: CreateEngineOptions): Engine {
  const { model, settings, serverPath, modelPath, log, output } = options;
  if (settings.engine !== undefined) {
    return new RemoteEngine({
      model,
      engine: settings.engine,
      draftSocket: settings.drafts.enabled ? settings.draft_socket : undefined,
      apiKey: settings.engine_api_key,
      log,
    });
  }
  if (serverPath === undefined || modelPath === undefined) {
    throw new TypeError(`createEngine: ${model} needs serverPath and modelPath`);
  }
  return new EngineProcess({
    model,
    serverPath,
    modelPath,
    args: settings.args,
    env: settings.env,
    drafts: settings.drafts.enabled,
    log,
    output,
  });
}

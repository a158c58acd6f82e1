/** The server that a bench or an evaluation talks to: one that runs, or the config's own, started for the time that it takes. */
import type { Command } from "commander";
import { loadConfig } from "../config.ts";
import type { Progress } from "../engine/progress.ts";
import { createLog } from "../log.ts";
import { withServer } from "../main.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";

export interface TargetFlags {
  url?: string;
  config?: string;
  apiKey?: string;
}

/** Adds the options that say which server is asked. */
export function targetOptions(command: Command): Command {
  return command
    .option("--url <url>", "a running server; without it, the one of the config is started and stopped again")
    .option("--config <file>", "the config of the server to start (default: as aded serve)")
    .option("--model <name>", "model to ask for (default: the server's own)")
    .option("--api-key <key>", "sent as a bearer token (default: $ADED_API_KEY)");
}

/** The server that --url names, or the config's own, started for the time of `use`; ready means drafting, too. */
export async function withTarget<T>(
  flags: TargetFlags,
  use: (url: string, apiKey: string | undefined, progress: Progress) => Promise<T>,
): Promise<T> {
  const progress = createProgress();
  if (flags.url !== undefined) return use(flags.url, flags.apiKey ?? process.env.ADED_API_KEY, progress);
  // Nobody else knows the address of this server: it needs no key.
  const config = { ...loadConfig(flags.config), api_keys: [] };
  return withServer(config, {
    log: createLog(process.env.ADED_LOG_LEVEL ?? "warn"),
    progress,
    signal: interruptSignal,
    use: (url) => use(url, undefined, progress),
  });
}

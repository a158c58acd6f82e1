/** `aded serve` */
import path from "node:path";
import { Command } from "commander";
import { loadConfig } from "../config.ts";
import { createLog } from "../log.ts";
import { type CloseOptions, type RunningServer, serve } from "../main.ts";
import { checkFolder } from "./bench-support.ts";
import { allowTermMs, interruptedBy, interruptSignal, keepOnHangUp, obeyTerm } from "./interrupt.ts";
import { createProgress } from "./progress.ts";
import { printLine } from "./report.ts";

/** After Ctrl-C: running requests, then the engines. Together well below the two seconds that it may take. */
const INTERRUPTED: CloseOptions = { drainMs: 500, graceMs: 700 };
const ENGINE_GRACE_MS = 5000;

interface ServeFlags {
  config?: string;
  record?: string;
}

export function serveCommand(): Command {
  return new Command("serve")
    .description("run the proxy, its engines and drafters (what npm start does)")
    .option(
      "--config <file>",
      "config file (default: $ADED_CONFIG, or aded.yaml in $ADED_HOME, or the default model)",
    )
    .option(
      "--record <file>",
      "append the steps, as token ids, to this file, for aded bench draft --trace; several models: FILE.NAME each",
    )
    .addHelpText(
      "after",
      "\nADED_HOST and ADED_PORT override the config's address; config/aded.yaml shows every option.",
    )
    .action(async (flags: ServeFlags) => {
      const config = loadConfig(flags.config);
      const drainMs = config.limits.drain_seconds * 1000;
      allowTermMs(drainMs + ENGINE_GRACE_MS + 2000);
      if (flags.record !== undefined) await checkFolder(flags.record);
      if (config.file !== undefined && !process.stdin.isTTY) keepOnHangUp();
      const ended = serve(config, {
        record: flags.record === undefined ? undefined : path.resolve(flags.record),
        signal: interruptSignal,
        progress: createProgress(),
        log: createLog(),
        closing: () => (interruptedBy() === "SIGTERM" ? { drainMs, graceMs: ENGINE_GRACE_MS } : INTERRUPTED),
        onListening: announce,
      });
      await ended.catch((error: unknown) => {
        if (error !== interruptSignal.reason || !obeyTerm()) throw error;
      });
    });
}

function announce(server: RunningServer, ready: boolean): void {
  const names = server.engines.map((engine) => engine.model).join(", ");
  printLine(ready ? `ready: ${names} at ${server.url}` : `listening at ${server.url}, starting ${names}`);
}

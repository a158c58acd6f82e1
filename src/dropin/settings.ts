/** What bin/aded-server's first half leaves in the run folder for the drafter that is started beside the engine. */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { DraftConfig } from "../options.ts";

const NAME = "drafts.json";

export function writeSettings(folder: string, drafts: DraftConfig): void {
  writeFileSync(path.join(folder, NAME), JSON.stringify(drafts), { mode: 0o600 });
}

export function readSettings(folder: string): DraftConfig {
  return JSON.parse(readFileSync(path.join(folder, NAME), "utf8")) as DraftConfig;
}

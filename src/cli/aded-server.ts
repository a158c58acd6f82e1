/** `aded-server …`, first half: finds or builds the engine, and tells bin/aded-server what to do. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { type Meeting, makePlan, shellText } from "../dropin/plan.ts";
import { writeSettings } from "../dropin/settings.ts";
import { measuresFile } from "../engine/measures.ts";
import { createRunFolder, pickRunFolder } from "../engine/run-folder.ts";
import { AdedError } from "../errors.ts";
import { projectPath } from "../home.ts";
import { installInterrupt, interruptSignal } from "./interrupt.ts";
import { reportError } from "./report.ts";

/**
 * @param pid process that will be llama-server; @param tell takes text for a POSIX shell
 * @returns exit status; other than 0: nothing was told
 */
export async function main(
  pid: number,
  argv: readonly string[],
  tell: (text: string) => void,
): Promise<number> {
  installInterrupt();
  try {
    const plan = makePlan(argv, process.env, programVersion());
    const server = await findServer();
    interruptSignal.throwIfAborted();
    let meeting: Meeting | undefined;
    if (plan.drafting) {
      const folder = pickRunFolder(pid);
      createRunFolder(folder);
      writeSettings(folder, plan.drafts);
      meeting = { folder, measures: measuresFile(server) };
    }
    tell(shellText(plan, server, meeting));
    return 0;
  } catch (error) {
    return reportError(interruptSignal.aborted ? interruptSignal.reason : error);
  }
}

/** The patched engine: that of ADED_ENGINE, or our own, which is built first if need be. */
async function findServer(): Promise<string> {
  const named = process.env.ADED_ENGINE?.trim();
  if (named) {
    if (existsSync(named)) return path.resolve(named);
    throw new AdedError("ADED_CONFIG", `ADED_ENGINE names ${named}, which is not there`, {
      hint: "set it to the path of a patched llama-server, or unset it for the one that comes with ADED",
    });
  }
  const { ensureEngine } = await import("../engine/build.ts");
  const { createProgress } = await import("./progress.ts");
  return (await ensureEngine({ signal: interruptSignal, progress: createProgress() })).serverPath;
}

function programVersion(): string {
  return (JSON.parse(readFileSync(projectPath("package.json"), "utf8")) as { version: string }).version;
}

/** `aded engine …`: the engine's source, patches and builds. */
import { existsSync } from "node:fs";
import path from "node:path";
import { Command } from "commander";
import { type EngineFlavour, ensureEngine, findEngine } from "../engine/build.ts";
import { applyPatches, countCommits, refreshPatches } from "../engine/patches.ts";
import { cloneSource } from "../engine/source.ts";
import { AdedError } from "../errors.ts";
import { homePath } from "../home.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";
import { printJson, printLine } from "./report.ts";

interface EngineFlags {
  stock?: boolean;
  asan?: boolean;
  tests?: boolean;
  json?: boolean;
}

const WORK_TREE = "engine-work";

export function engineCommand(): Command {
  const command = new Command("engine").description("build llama-server, and keep its patches up");
  command
    .command("build")
    .description("build the patched llama-server and print its path")
    .option("--stock", "without the patches, save those that mend a fault")
    .option("--asan", "patched, with AddressSanitizer")
    .option("--tests", "the C++ tests of the patches too")
    .option("--json", "print all paths as JSON")
    .action(async (flags: EngineFlags) => {
      const build = await ensureEngine({
        flavour: flavourOf(flags),
        tests: flags.tests,
        signal: interruptSignal,
        progress: createProgress(),
      });
      if (flags.json) printJson(build);
      else printLine(build.serverPath);
    });
  command
    .command("path")
    .description("print the path of llama-server; status 1 if it is not built")
    .option("--stock", "of the stock one")
    .option("--asan", "of the one with AddressSanitizer")
    .option("--json", "print all paths as JSON")
    .action(async (flags: EngineFlags) => {
      const flavour = flavourOf(flags);
      const build = await findEngine({ flavour, signal: interruptSignal });
      if (!build) {
        const flag = flavour === "patched" ? "" : ` --${flavour}`;
        throw new AdedError("ADED_BUILD", `the ${flavour} engine is not built`, {
          hint: `run: npx aded engine build${flag}`,
        });
      }
      if (flags.json) printJson(build);
      else printLine(build.serverPath);
    });
  command
    .command("fetch")
    .description("clone the engine's pinned source, unpatched, into a work tree")
    .argument("[folder]", `must not exist yet (default: ${WORK_TREE} in ADED_HOME)`)
    .action(async (argument?: string) => {
      const folder = workTree(argument);
      if (existsSync(folder)) {
        throw new AdedError("ADED_USAGE", `${folder} exists already`, {
          hint: "remove it, or name another folder",
        });
      }
      await cloneSource(folder, { signal: interruptSignal });
      printLine(
        `${folder}: the engine's source; next: npx aded engine apply${argument ? ` ${argument}` : ""}`,
      );
    });
  command
    .command("apply")
    .description("apply patches/ to a work tree: patches become commits, the overlay's files stay untracked")
    .argument("[folder]", `fetched first if it does not exist (default: ${WORK_TREE} in ADED_HOME)`)
    .action(async (argument?: string) => {
      const folder = workTree(argument);
      if (!existsSync(folder)) await cloneSource(folder, { signal: interruptSignal });
      if ((await countCommits(folder, interruptSignal)) > 0) {
        throw new AdedError("ADED_USAGE", `${folder} has commits of its own already`, {
          hint: "remove it to begin anew, or name another folder",
        });
      }
      await applyPatches(folder, { signal: interruptSignal });
      printLine(
        `${folder}: patched; after committing changes: npx aded engine refresh${argument ? ` ${argument}` : ""}`,
      );
    });
  command
    .command("refresh")
    .description("write patches/ anew from the commits and untracked files of a work tree")
    .argument("[folder]", `made by 'aded engine apply' (default: ${WORK_TREE} in ADED_HOME)`)
    .option("--json", "print what was written as JSON")
    .action(async (folder: string | undefined, flags: EngineFlags) => {
      const written = await refreshPatches(workTree(folder), { signal: interruptSignal });
      if (flags.json) return printJson(written);
      for (const name of written.patches) printLine(`patches/${name}`);
      for (const name of written.overlay) printLine(`patches/overlay/${name}`);
    });
  return command;
}

function workTree(folder?: string): string {
  return folder === undefined ? homePath(WORK_TREE) : path.resolve(folder);
}

function flavourOf(flags: EngineFlags): EngineFlavour {
  if (flags.stock && flags.asan) throw new AdedError("ADED_USAGE", "--stock and --asan exclude each other");
  if (flags.stock) return "stock";
  return flags.asan ? "asan" : "patched";
}

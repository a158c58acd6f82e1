/** `aded engine …`: the engine's source, patches and builds. */
import { existsSync } from "node:fs";
import path from "node:path";
import { Command } from "commander";
import { type EngineFlavour, ensureEngine, findEngine } from "../engine/build.ts";
import { applyPatches, refreshPatches } from "../engine/patches.ts";
import { cloneSource } from "../engine/source.ts";
import { AdedError } from "../errors.ts";
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
    .option("--stock", "without the patches")
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
    .option("--stock", "of the unpatched one")
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
    .argument("[folder]", "must not exist yet", WORK_TREE)
    .action(async (folder: string) => {
      if (existsSync(folder))
        throw new AdedError("ADED_USAGE", `${folder} exists already`, { hint: "name another folder" });
      await cloneSource(path.resolve(folder), { signal: interruptSignal });
      printLine(`${folder}: the engine's source; next: npx aded engine apply ${folder}`);
    });
  command
    .command("apply")
    .description("apply patches/ to a work tree: patches become commits, the overlay's files stay untracked")
    .argument("[folder]", "made by 'aded engine fetch'", WORK_TREE)
    .action(async (folder: string) => {
      if (!existsSync(path.join(folder, ".git"))) {
        throw new AdedError("ADED_USAGE", `${folder} is not a work tree of the engine`, {
          hint: `make it with: npx aded engine fetch ${folder}`,
        });
      }
      await applyPatches(path.resolve(folder), { signal: interruptSignal });
      printLine(`${folder}: patched; after changing and committing: npx aded engine refresh ${folder}`);
    });
  command
    .command("refresh")
    .description("write patches/ anew from the commits and untracked files of a work tree")
    .argument("[folder]", "made by 'aded engine fetch' and 'apply'", WORK_TREE)
    .option("--json", "print what was written as JSON")
    .action(async (folder: string, flags: EngineFlags) => {
      const written = await refreshPatches(path.resolve(folder), { signal: interruptSignal });
      if (flags.json) return printJson(written);
      for (const name of written.patches) printLine(`patches/${name}`);
      for (const name of written.overlay) printLine(`patches/overlay/${name}`);
    });
  return command;
}

function flavourOf(flags: EngineFlags): EngineFlavour {
  if (flags.stock && flags.asan) throw new AdedError("ADED_USAGE", "--stock and --asan exclude each other");
  if (flags.stock) return "stock";
  return flags.asan ? "asan" : "patched";
}

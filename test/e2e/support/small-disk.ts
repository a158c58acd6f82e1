/**
 * A disk that is soon full: a small file system in memory. Where nothing may be mounted (not root, or in a container) a limit on the size of
 * files, at which the system ends the program: it then can't say what was wrong, but must not leave a file that looks whole either.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync } from "node:fs";
import { projectPath } from "../../../src/home.ts";
import type { Outcome } from "../../unit/cli/support.ts";

export interface SmallDisk {
  folder: string;
  /** False: there is a limit on files instead. */
  mounted: boolean;
  /** Runs the command line; no more than the disk's size fits into its folder. */
  aded(args: readonly string[]): Promise<Outcome>;
  remove(): void;
}

/** @param folder is made @param kib size */
export function smallDisk(folder: string, kib: number): SmallDisk {
  mkdirSync(folder, { recursive: true });
  const mounted = mount(folder, kib);
  const program = [process.execPath, projectPath("bin", "aded.js")];
  const limited = ["bash", "-c", `ulimit -f ${kib}; exec "$@"`, "bash", ...program];
  return {
    folder,
    mounted,
    async aded(args) {
      const [command, ...rest] = mounted ? program : limited;
      const child = spawn(command, [...rest, ...args], { stdio: ["ignore", "pipe", "pipe"] });
      const outcome: Outcome = { status: null, stdout: "", stderr: "" };
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        outcome.stdout += text;
      });
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        outcome.stderr += text;
      });
      [outcome.status] = (await once(child, "close")) as [number | null];
      return outcome;
    },
    remove() {
      if (mounted) execFileSync("umount", [folder]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function mount(folder: string, kib: number): boolean {
  if (process.getuid?.() !== 0) return false;
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${kib}k`, "tmpfs", folder], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

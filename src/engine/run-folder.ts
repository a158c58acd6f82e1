/**
 * A private folder (0700) for the sockets of one engine. Socket paths have to be short, so it lies under ADED_HOME only
 * if that is short enough, otherwise in the folder for temporary files.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { AdedError } from "../errors.ts";
import { homePath } from "../home.ts";

/** sun_path holds 108 bytes with the final zero on Linux, 104 on macOS. */
const MAX_SOCKET_PATH = 103;
/** "draft.sock", or a process id with ".sock". */
const LONGEST_NAME = "4194304.sock";

/**
 * A path for a new folder; nothing is created yet.
 * @param pid the process that it is for: once that is gone, the folder is stale
 * @throws AdedError ADED_ENGINE_START when every place is too deep
 */
export function pickRunFolder(pid: number = process.pid): string {
  const name = `${pid}-${randomBytes(3).toString("hex")}`;
  const candidates = [
    homePath("run", name),
    path.join(tmpdir(), `aded-${name}`),
    path.join("/tmp", `aded-${name}`),
  ];
  const found = candidates.find(
    (folder) => Buffer.byteLength(path.join(folder, LONGEST_NAME)) <= MAX_SOCKET_PATH,
  );
  if (found !== undefined) return found;
  throw new AdedError(
    "ADED_ENGINE_START",
    `no folder for sockets has a short enough path (${candidates.join(", ")})`,
    {
      hint: "set TMPDIR or ADED_HOME to a shorter path",
    },
  );
}

/** Creates the folder; it must be new, so that nobody else owns it. */
export function createRunFolder(folder: string): void {
  mkdirSync(path.dirname(folder), { recursive: true });
  removeStale(path.dirname(folder));
  mkdirSync(folder, { mode: 0o700 });
}

export function removeRunFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

/** Folders under ADED_HOME/run whose process is gone (it was killed) are removed. */
function removeStale(parent: string): void {
  if (parent !== homePath("run") || !existsSync(parent)) return;
  for (const name of readdirSync(parent)) {
    const pid = Number(/^(\d+)-[0-9a-f]{6}$/.exec(name)?.[1]);
    if (pid > 0 && !isAlive(pid)) removeRunFolder(path.join(parent, name));
  }
}

/** Whether there is a process of that id, whoever it belongs to. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

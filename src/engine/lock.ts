/**
 * A lock file between processes. It holds the owner's process id and start time; an owner that is gone (also one that
 * was killed) has lost it. Two that wait for the same stale lock can't both get it.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";

const POLL_MS = 250;

export interface LockOptions {
  signal?: AbortSignal;
  /** Called once when another process holds the lock and we start to wait. */
  onWait?: (ownerPid: number) => void;
}

/** Takes the lock at `file`, waiting as long as a living process holds it. Returns the function that gives it back. */
export async function acquireLock(file: string, options: LockOptions = {}): Promise<() => Promise<void>> {
  await mkdir(path.dirname(file), { recursive: true });
  const own = ownerLine(process.pid);
  const draft = `${file}.${process.pid}.${randomBytes(4).toString("hex")}`;
  try {
    await writeFile(draft, own);
    let waiting = false;
    for (;;) {
      options.signal?.throwIfAborted();
      if (await linkIfAbsent(draft, file)) break;
      const held = await readIfThere(file);
      if (held === undefined) continue;
      if (!isAlive(held)) {
        await removeStale(file, held);
        continue;
      }
      if (!waiting) options.onWait?.(Number.parseInt(held, 10));
      waiting = true;
      await delay(POLL_MS, undefined, { signal: options.signal });
    }
  } finally {
    await rm(draft, { force: true });
  }
  return async () => {
    if ((await readIfThere(file)) === own) await rm(file, { force: true });
  };
}

/**
 * Takes the lock at `file` unless another living process holds it. A lock that this very process holds already (another thread of it,
 * which is gone) is taken over.
 */
export async function tryLock(
  file: string,
): Promise<{ release: () => Promise<void> } | { ownerPid: number }> {
  const held = new AbortController();
  let ownerPid = 0;
  const onWait = (pid: number): void => {
    ownerPid = pid;
    held.abort();
  };
  try {
    return { release: await acquireLock(file, { signal: held.signal, onWait }) };
  } catch (error) {
    if (ownerPid === 0) throw error;
    if (ownerPid !== process.pid) return { ownerPid };
    return { release: () => rm(file, { force: true }) };
  }
}

/** Moves the stale lock aside; if in the meantime someone else's fresh lock was caught, puts that back. */
async function removeStale(file: string, stale: string): Promise<void> {
  const aside = `${file}.stale.${randomBytes(4).toString("hex")}`;
  try {
    await rename(file, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  if ((await readIfThere(aside)) !== stale) await linkIfAbsent(aside, file);
  await rm(aside, { force: true });
}

async function linkIfAbsent(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function ownerLine(pid: number): string {
  return `${pid} ${startTime(pid)}`;
}

/** Is the process that wrote this line still there? Where the start time is known, a reused process id is noticed. */
function isAlive(line: string): boolean {
  const [pid, started] = line.split(" ");
  const id = Number.parseInt(pid, 10);
  if (!Number.isInteger(id) || id <= 0) return false;
  try {
    process.kill(id, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  return started === startTime(id);
}

/** Linux: the start time in clock ticks since boot. Elsewhere "-". */
function startTime(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "-";
  } catch {
    return "-";
  }
}

/** Making a corpus file of others: one maker at a time, everything half made in a folder that goes at the end. */
import path from "node:path";
import { acquireLock } from "../engine/lock.ts";
import { silentProgress, type WorkOptions } from "../engine/progress.ts";
import { makeWorkFolder } from "./corpus-file.ts";
import { databaseError } from "./database.ts";

export interface MakeOptions extends WorkOptions {
  /** Bound on DuckDB's memory, bytes. @default 512 MiB */
  memory?: number;
  /** @default 2 */
  threads?: number;
}

export interface MadeCorpus {
  out: string;
  rows: number;
  bytes: number;
}

export const DEFAULT_MEMORY = 512 * 2 ** 20;

/** The file system's codes for: full, over the user's quota, larger than files may be. */
const NO_ROOM = ["ENOSPC", "EDQUOT", "EFBIG"];

/**
 * @param make makes the file at its first argument, with a work folder on the same file system as its second
 * @throws AdedError ADED_CORPUS, also when there is no room for what is written beside the file; what `make` throws
 */
export async function makeCorpus<T>(
  out: string,
  options: WorkOptions,
  make: (target: string, work: string) => Promise<T>,
): Promise<T> {
  const { signal, progress = silentProgress } = options;
  const target = path.resolve(out);
  try {
    const release = await acquireLock(`${target}.lock`, {
      signal,
      onWait: (pid) => progress.line(`waiting for process ${pid}, which is making ${out}`),
    });
    try {
      const work = await makeWorkFolder(target);
      try {
        return await make(target, work.path);
      } finally {
        await work.remove();
      }
    } finally {
      await release();
    }
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    throw NO_ROOM.includes(code) ? databaseError(error, `can't write ${out}`) : error;
  }
}

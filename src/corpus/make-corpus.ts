/** Making a corpus file of others: one maker at a time, everything half made in a folder that goes at the end. */
import path from "node:path";
import { acquireLock } from "../engine/lock.ts";
import { silentProgress, type WorkOptions } from "../engine/progress.ts";
import { makeWorkFolder } from "./corpus-file.ts";

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

/** @param make makes the file at its first argument, with a work folder on the same file system as its second */
export async function makeCorpus<T>(
  out: string,
  options: WorkOptions,
  make: (target: string, work: string) => Promise<T>,
): Promise<T> {
  const { signal, progress = silentProgress } = options;
  const target = path.resolve(out);
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
}

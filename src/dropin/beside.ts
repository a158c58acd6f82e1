/**
 * The process beside an engine that bin/aded-server has become: drafts until the engine is gone, then removes their folder. The
 * engine never waits for it and never notices its end, other than by the speed.
 */
import { constants, mkdirSync, openSync, readSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import path from "node:path";
import { pino } from "pino";
import { homePath } from "../home.ts";
import type { Log } from "../log.ts";
import { Engines } from "./engines.ts";
import { readSettings } from "./settings.ts";

/**
 * @param server process id of the server that is about to start; NaN: unknown
 * @returns resolves with the exit status when the engine, which holds the other end of the folder's fifo, has ended
 */
export async function main(folder: string, server: number): Promise<number> {
  // the engine decides when to end; what is sent to all processes of a terminal or a service is meant for it
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const) process.on(name, () => {});
  const gone = untilWritersGone(path.join(folder, "alive"));
  const engines = new Engines(folder, readSettings(folder), openLog(), server);
  await gone;
  await engines.close();
  rmSync(folder, { recursive: true, force: true });
  return 0;
}

/** Resolves when no process has the fifo open for writing any more. */
async function untilWritersGone(fifo: string): Promise<void> {
  const fd = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    // a fifo that had no writer when it was opened never reports its end
    if (readSync(fd, Buffer.alloc(1)) === 0) return;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
  }
  const reader = new Socket({ fd, readable: true, writable: false });
  await new Promise<void>((resolve) => {
    reader.on("error", () => resolve());
    reader.on("close", () => resolve());
    reader.resume();
  });
}

/** A file of its own: the engine's output is the engine's. A log that can't be written is given up, drafting is not. */
function openLog(): Log {
  const level = process.env.ADED_LOG_LEVEL ?? "info";
  try {
    mkdirSync(homePath("logs"), { recursive: true, mode: 0o700 });
    const file = pino.destination({ dest: homePath("logs", "aded-server.log"), sync: true, mode: 0o600 });
    file.on("error", () => {});
    return pino({ level, base: { pid: process.pid } }, file);
  } catch {
    return pino({ level: "silent" });
  }
}

/** The log: pino on stderr, so that stdout stays free for what a command reports. Imports nothing of ours. */
import { type Logger, pino } from "pino";

export type Log = Logger;

/** @param level pino level name. @default ADED_LOG_LEVEL or "info" */
export function createLog(level: string = process.env.ADED_LOG_LEVEL ?? "info"): Log {
  return pino({ level, base: undefined }, pino.destination({ dest: 2, sync: true }));
}

/** A log that drops everything, for tests and for quiet commands. */
export function silentLog(): Log {
  return pino({ level: "silent" });
}

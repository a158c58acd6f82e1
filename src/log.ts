/** The log: pino on stderr, so that stdout stays free for what a command reports. Imports nothing of ours. */
import { type DestinationStream, type Logger, pino } from "pino";

export type Log = Logger;

/** The last lines that were logged, for the dashboard; each with a number that counts up from 1. */
export class RecentLines {
  readonly #most: number;
  #lines: string[] = [];
  #first = 1;

  constructor(most: number) {
    this.#most = most;
  }

  add(line: string): void {
    this.#lines.push(line.trimEnd());
    if (this.#lines.length < 2 * this.#most) return;
    this.#first += this.#lines.length - this.#most;
    this.#lines = this.#lines.slice(-this.#most);
  }

  /** Lines with a number above `after`, at most those that are kept. */
  since(after: number): { next: number; lines: string[] } {
    const end = this.#first + this.#lines.length;
    const from = Math.max(after + 1, this.#first, end - this.#most);
    return { next: end - 1, lines: this.#lines.slice(from - this.#first) };
  }
}

export const recentLines = new RecentLines(500);

/** @param level pino level name. @default ADED_LOG_LEVEL or "info" */
export function createLog(level: string = process.env.ADED_LOG_LEVEL ?? "info"): Log {
  const out = pino.destination({ dest: 2, sync: true });
  const both: DestinationStream = {
    write(line) {
      recentLines.add(line);
      out.write(line);
    },
  };
  return pino({ level, base: undefined }, both);
}

/** A log that drops everything, for tests and for quiet commands. */
export function silentLog(): Log {
  return pino({ level: "silent" });
}

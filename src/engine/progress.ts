/**
 * How long-running work reports how far it is. The command line shows it as a bar or as plain lines; a caller that
 * does not care passes `silentProgress`.
 */

export interface ProgressTask {
  /** @param done and `total` in the task's unit (`total` 0: not known yet); @param note what is being worked on now. */
  update(done: number, total: number, note?: string): void;
  /** The task is over; `outcome` (e.g. "done", "already there") is shown once. Calls after the first are ignored. */
  end(outcome?: string): void;
}

export type ProgressUnit = "bytes" | "steps";

export interface Progress {
  task(title: string, unit: ProgressUnit): ProgressTask;
  /** One line that is no task. */
  line(text: string): void;
}

const silentTask: ProgressTask = { update() {}, end() {} };

export const silentProgress: Progress = { task: () => silentTask, line() {} };

/** What every long-running call takes. */
export interface WorkOptions {
  /** Aborting stops the work and everything that it started. */
  signal?: AbortSignal;
  progress?: Progress;
}

/** Progress as one short text, for whoever waits elsewhere. */
export function notingProgress(note: (text: string) => void): Progress {
  return {
    task: (name, unit) => ({
      update: (done, total) => {
        const part = total > 0 ? ` ${Math.floor((100 * done) / total)} %` : "";
        note(unit === "bytes" && total === 0 ? `${name}: ${done} bytes` : `${name}${part}`);
      },
      end: () => undefined,
    }),
    line: note,
  };
}

/** Shows progress on stderr: a bar on a terminal, otherwise one plain line every few seconds. */
import cliProgress, { type Options, type SingleBar } from "cli-progress";
import type { Progress, ProgressTask, ProgressUnit } from "../engine/progress.ts";

const LINE_INTERVAL_MS = 3000;

export interface ProgressOutput {
  write(text: string): unknown;
  isTTY?: boolean;
}

export interface ProgressOptions {
  /** @default process.stderr */
  output?: ProgressOutput;
  /** Clock, ms. @default Date.now */
  now?: () => number;
}

export function createProgress(options: ProgressOptions = {}): Progress {
  const output = options.output ?? process.stderr;
  const now = options.now ?? Date.now;
  const bars = output.isTTY === true && output === process.stderr;
  return {
    task: (title, unit) => (bars ? barTask(title, unit) : lineTask(title, unit, output, now)),
    line: (text) => void output.write(`${text}\n`),
  };
}

function barTask(title: string, unit: ProgressUnit): ProgressTask {
  const started = Date.now();
  let bar: SingleBar | undefined;
  let ended = false;
  const options: Options = {
    hideCursor: null,
    clearOnComplete: true,
    stopOnComplete: false,
    etaBuffer: 50,
    format: (settings, params, payload: { note?: string }) =>
      params.total > 0
        ? `${title} ${cliProgress.Format.BarFormat(params.progress, settings)} ${String(Math.floor(params.progress * 100)).padStart(3)}% ` +
          `${amount(params.value, params.total, unit)}  ${(payload.note ?? "").slice(0, 40)}`
        : `${title} … ${(payload.note ?? "").slice(0, 60)}`,
  };
  return {
    update(done, total, note) {
      if (ended) return;
      if (!bar) {
        bar = new cliProgress.SingleBar({ ...options, stream: process.stderr });
        bar.start(total, done, { note });
      }
      bar.setTotal(total);
      bar.update(Math.min(done, total || done), { note });
    },
    end(outcome = "done") {
      if (ended) return;
      ended = true;
      bar?.stop();
      process.stderr.write(`${title}: ${outcome} (${seconds(Date.now() - started)})\n`);
    },
  };
}

function lineTask(
  title: string,
  unit: ProgressUnit,
  output: ProgressOutput,
  now: () => number,
): ProgressTask {
  const started = now();
  let last = Number.NEGATIVE_INFINITY;
  let ended = false;
  return {
    update(done, total, note) {
      if (ended || now() - last < LINE_INTERVAL_MS) return;
      last = now();
      const share = total > 0 ? ` ${Math.floor((100 * done) / total)}% (${amount(done, total, unit)})` : "";
      output.write(`${title}:${share}${note ? ` ${note}` : ""}\n`);
    },
    end(outcome = "done") {
      if (ended) return;
      ended = true;
      output.write(`${title}: ${outcome} (${seconds(now() - started)})\n`);
    },
  };
}

function amount(done: number, total: number, unit: ProgressUnit): string {
  if (unit === "steps") return `${done}/${total}`;
  const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  return `${mebibytes(done)}/${mebibytes(total)} MiB`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

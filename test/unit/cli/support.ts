/** Runs the real command line in a process of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { projectPath } from "../../../src/home.ts";

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

export interface RunningCommand {
  child: ChildProcess;
  /** Resolves once stdout or stderr holds the text. */
  printed(text: string | RegExp): Promise<void>;
  ended: Promise<Outcome>;
  /** What it has printed so far. */
  outcome: Readonly<Outcome>;
}

export function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): RunningCommand {
  const child = spawn(process.execPath, [projectPath("bin", "aded.js"), ...args], {
    env: { ...process.env, ADED_CONFIG: "", ADED_HOST: "", ADED_PORT: "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const outcome: Outcome = { status: null, stdout: "", stderr: "" };
  const waiting = new Set<() => void>();
  const more = (): void => {
    for (const look of waiting) look();
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    outcome.stdout += text;
    more();
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    outcome.stderr += text;
    more();
  });
  const ended = once(child, "close").then(([status]) => {
    outcome.status = status as number | null;
    more();
    return outcome;
  });
  const printed = (text: string | RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const all = outcome.stdout + outcome.stderr;
        if (typeof text === "string" ? all.includes(text) : text.test(all)) resolve();
        else if (child.exitCode !== null) reject(new Error(`it ended without printing ${text}:\n${all}`));
        else return;
        waiting.delete(look);
      };
      waiting.add(look);
      look();
    });
  return { child, printed, ended, outcome };
}

export function aded(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  return start(args, env).ended;
}

/** Command lines of the living processes that mention `text`. Linux only; elsewhere none. */
export function processesWith(text: string): string[] {
  let pids: string[] = [];
  try {
    pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  } catch {}
  return pids.flatMap((pid) => {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      const zombie = /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
      return line.includes(text) && !zombie ? [`${pid} ${line}`] : [];
    } catch {
      return [];
    }
  });
}

/**
 * Child processes that never outlive us. Each runs in a process group of its own (so that Ctrl-C reaches only us and
 * we decide the order), and the whole group is ended on abort and when this process exits. A small shell script that
 * holds the other end of a pipe ends them when this process is killed and can do nothing any more.
 */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { AdedError, messageOf } from "../errors.ts";

/** From SIGTERM to SIGKILL when work is aborted, ms: all of Ctrl-C must be over within two seconds. */
const ABORT_GRACE_MS = 800;

/**
 * Reads "+ PID" and "- PID" lines; at the end of the input, which is the end of this process, kills the groups still
 * listed. In plain POSIX shell, because prctl(PR_SET_PDEATHSIG) is Linux only and bound to a thread.
 */
const GUARD = `
groups=" "
while read -r op pid; do
  case $op in
    +) groups="$groups$pid " ;;
    -) groups="\${groups%% $pid *} \${groups#* $pid }" ;;
  esac
done
for pid in $groups; do kill -KILL "-$pid" 2>/dev/null; done
`;

const groups = new Set<number>();
let guard: Writable | undefined;

/** Sends `signal` to the whole group of `pid`. A group that is gone (macOS: EPERM when only zombies are left) is no error. */
export function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ESRCH" && code !== "EPERM") throw error;
  }
}

/** Ends every group at once. For the exit hook, where nothing can be awaited any more. */
export function killAllGroups(): void {
  for (const pid of groups) killGroup(pid, "SIGKILL");
  groups.clear();
}

/**
 * Starts a process in a group of its own, which is ended when this process exits.
 * `child.pid` is undefined when it could not be started; the "error" event then says why.
 */
export function spawnGroup(command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  guard ??= startGuard();
  const child = spawn(command, args, { ...options, detached: true });
  const pid = child.pid;
  if (pid !== undefined) {
    groups.add(pid);
    guard.write(`+ ${pid}\n`);
    child.once("exit", () => {
      // the leader is gone: what it left behind in its group must go too
      killGroup(pid, "SIGKILL");
      groups.delete(pid);
      guard?.write(`- ${pid}\n`);
    });
  }
  return child;
}

function startGuard(): Writable {
  process.on("exit", killAllGroups);
  const child = spawn("/bin/sh", ["-c", GUARD], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
    cwd: "/",
  });
  const stdin = child.stdin as Writable & { unref?: () => void };
  // neither the script nor a fault of it may keep this process alive or end it: the exit hook is still there
  child.on("error", () => {});
  stdin.on("error", () => {});
  child.unref();
  stdin.unref?.();
  return stdin;
}

export interface RunOptions {
  cwd?: string;
  /** The child's whole environment. @default this process's own */
  env?: NodeJS.ProcessEnv;
  signal?: AbortSignal;
  /** Called with each line of stdout and stderr as it comes, without the line end. */
  onLine?: (line: string, stream: "stdout" | "stderr") => void;
  /** Called with stdout's bytes instead of collecting them; awaited, so that a slow sink slows the child. */
  onData?: (chunk: Buffer) => Promise<void>;
  /** Keep stdout for the result. @default true unless onData is given */
  collect?: boolean;
}

export interface RunResult {
  /** Exit status; 128 + n when signal n ended it. */
  status: number;
  stdout: string;
  /** The last 100 lines of stderr. */
  stderr: string;
}

const TAIL_LINES = 100;

/**
 * Runs a command to its end. Resolves with its exit status, whatever that is.
 * @throws the signal's reason when aborted (the group is gone by then); the spawn error when the command can't be started.
 */
export async function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const { signal, onLine, onData } = options;
  signal?.throwIfAborted();
  const child = spawnGroup(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const stdoutParts: string[] = [];
  const stderrLines: string[] = [];
  const collect = options.collect ?? onData === undefined;
  let sinkError: unknown;

  const readStdout = async (stream: Readable): Promise<void> => {
    if (onData) {
      for await (const chunk of stream) await onData(chunk as Buffer);
      return;
    }
    for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
      if (collect) stdoutParts.push(line);
      onLine?.(line, "stdout");
    }
  };
  const readStderr = async (stream: Readable): Promise<void> => {
    for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
      stderrLines.push(line);
      if (stderrLines.length > TAIL_LINES) stderrLines.shift();
      onLine?.(line, "stderr");
    }
  };

  let killTimer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    const pid = child.pid;
    if (pid === undefined) return;
    killGroup(pid, "SIGTERM");
    killTimer ??= setTimeout(() => killGroup(pid, "SIGKILL"), ABORT_GRACE_MS);
  };
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const closed = new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, name) => resolve(code ?? 128 + signalNumber(name)));
    });
    const sinks = Promise.all([
      readStdout(child.stdout as Readable),
      readStderr(child.stderr as Readable),
    ]).catch((error: unknown) => {
      sinkError = error;
      stop();
    });
    const status = await closed;
    await sinks;
    signal?.throwIfAborted();
    if (sinkError !== undefined) throw sinkError;
    return { status, stdout: stdoutParts.join("\n"), stderr: stderrLines.join("\n") };
  } finally {
    clearTimeout(killTimer);
    signal?.removeEventListener("abort", stop);
  }
}

/** Runs a command that has to succeed; returns its stdout. @throws AdedError with `code` and the last lines of stderr. */
export async function runChecked(
  code: "ADED_BUILD" | "ADED_PATCH" | "ADED_DOWNLOAD",
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const what = [command, ...args].join(" ");
  let result: RunResult;
  try {
    result = await run(command, args, options);
  } catch (error) {
    if (options.signal?.aborted || error instanceof AdedError) throw error;
    throw new AdedError(code, `could not run '${what}': ${messageOf(error)}`, { cause: error });
  }
  if (result.status !== 0) {
    const tail = result.stderr.split("\n").slice(-15).join("\n");
    throw new AdedError(code, `'${what}' failed with status ${result.status}${tail ? `:\n${tail}` : ""}`);
  }
  return result.stdout;
}

function signalNumber(name: NodeJS.Signals | null): number {
  if (name === "SIGINT") return 2;
  if (name === "SIGKILL") return 9;
  if (name === "SIGTERM") return 15;
  return 0;
}

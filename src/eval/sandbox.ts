/**
 * Runs programs that a model wrote, each in a process of its own: no network where the platform has namespaces, an empty folder
 * that goes afterwards, another user where we are root, limits on time, memory, files and processes. This keeps accidents
 * in; it is no wall against an attacker, which is why nothing runs unless the user allows it.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { AdedError, messageOf } from "../errors.ts";
import { projectPath } from "../home.ts";

export interface SandboxOptions {
  /** Seconds for one program. @default 3, as the original */
  timeoutS?: number;
  /** Address space, bytes. @default 512 MiB */
  memoryBytes?: number;
  /** Largest file, bytes. @default 1 MiB */
  fileBytes?: number;
  signal?: AbortSignal;
}

export interface ProgramResult {
  passed: boolean;
  /** "passed", "timed out", or "failed: " and why. */
  result: string;
}

export interface Isolation {
  network: boolean;
  user: boolean;
}

/** "nobody" on every Linux. */
const NOBODY = 65534;
/** Modules that HumanEval's solutions import. */
const PROBE = "import math, random, heapq, hashlib, collections, re, typing, itertools, datetime";
/** Beyond the program's own time, for starting Python on a busy machine, ms. */
const GRACE_MS = 20_000;

/** How programs are started here. */
interface Way {
  /** Command in front of Python's, which takes the network away. */
  prefix: readonly string[];
  python: string;
  /** User that the program becomes. */
  uid: number | null;
}

export class Sandbox {
  /** What is kept from the programs beside the limits. */
  readonly isolation: Isolation;
  readonly #options: SandboxOptions;
  readonly #way: Way;

  private constructor(options: SandboxOptions, way: Way) {
    this.#options = options;
    this.#way = way;
    this.isolation = { network: way.prefix.length > 0, user: way.uid !== null };
  }

  /** Finds out what this platform can keep from a program. @throws AdedError ADED_EVAL when there is no Python */
  static async open(options: SandboxOptions = {}): Promise<Sandbox> {
    const root = process.getuid?.() === 0;
    const unshare = root ? ["unshare", "-n"] : ["unshare", "-r", "-n"];
    const prefix = (await succeeds([...unshare, "true"])) ? unshare : [];
    const users = root ? [NOBODY, null] : [null];
    // a Python under root's home can't load its own modules as another user; the system's can
    for (const uid of users) {
      for (const python of ["python3", "/usr/bin/python3"]) {
        const sandbox = new Sandbox(options, { prefix, python, uid });
        if ((await new Sandbox({ timeoutS: 20 }, sandbox.#way).run(PROBE)).passed) return sandbox;
      }
    }
    throw new AdedError("ADED_EVAL", "python3 does not run here", {
      hint: "Install python3; HumanEval is Python.",
    });
  }

  async run(program: string): Promise<ProgramResult> {
    const { timeoutS = 3, memoryBytes = 512 * 2 ** 20, fileBytes = 2 ** 20, signal } = this.#options;
    const folder = await mkdtemp(path.join(tmpdir(), "aded-program-"));
    try {
      // the program's user is another one, and may write here and nowhere else
      await chmod(folder, 0o777);
      const token = randomBytes(16).toString("hex");
      const task = {
        program,
        token,
        timeout: timeoutS,
        memory: memoryBytes,
        file: fileBytes,
        uid: this.#way.uid,
      };
      const command = [
        ...this.#way.prefix,
        this.#way.python,
        "-I",
        "-S",
        "-B",
        projectPath("src", "eval", "run_program.py"),
      ];
      const output = await runOne(command, JSON.stringify(task), {
        cwd: folder,
        timeoutMs: timeoutS * 1000 + GRACE_MS,
        signal,
      });
      return readResult(output, token);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}

/** Only a line with this run's token counts: what the program itself prints cannot claim that it passed by accident. */
function readResult({ stdout, timedOut }: Output, token: string): ProgramResult {
  if (timedOut) return { passed: false, result: "timed out" };
  for (const line of stdout.split("\n")) {
    try {
      const answer = JSON.parse(line) as { token?: unknown; result?: unknown };
      if (answer.token === token && typeof answer.result === "string") {
        return { passed: answer.result === "passed", result: answer.result };
      }
    } catch {
      // The program's own output.
    }
  }
  return { passed: false, result: "failed: the process ended without a result" };
}

interface Output {
  stdout: string;
  timedOut: boolean;
}

const MOST_OUTPUT = 1 << 20;

async function runOne(
  [command, ...args]: readonly string[],
  input: string,
  { cwd, timeoutMs, signal }: { cwd: string; timeoutMs: number; signal?: AbortSignal },
): Promise<Output> {
  signal?.throwIfAborted();
  const child = spawn(command, args, {
    cwd,
    detached: true,
    stdio: ["pipe", "pipe", "ignore"],
    env: {
      PATH: process.env.PATH,
      HOME: cwd,
      TMPDIR: cwd,
      LANG: "C.UTF-8",
      PYTHONHASHSEED: "0",
      OMP_NUM_THREADS: "1",
    },
  });
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // It has gone.
    }
  };
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    kill();
  }, timeoutMs);
  signal?.addEventListener("abort", kill);
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    if (stdout.length < MOST_OUTPUT) stdout += text;
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  try {
    await new Promise<void>((resolve, reject) => {
      child.on("error", (error) =>
        reject(new AdedError("ADED_EVAL", `cannot start ${command}: ${messageOf(error)}`, { cause: error })),
      );
      child.on("close", () => resolve());
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", kill);
    // whatever the program left behind goes with it
    kill();
  }
  signal?.throwIfAborted();
  return { stdout, timedOut };
}

async function succeeds([command, ...args]: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: "ignore" });
    child.on("error", () => resolve(false));
    child.on("close", (status) => resolve(status === 0));
  });
}

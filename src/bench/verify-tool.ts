/**
 * llama-batch-cost (patches/overlay/tools/batch-cost) as a child process: it decodes batches on command, one command a
 * line, and answers each with a line of JSON. It uses llama.h alone, so it measures any build whose libraries it is given.
 */
import type { ChildProcess } from "node:child_process";
import { readFileSync, realpathSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { killGroup, spawnGroup } from "../engine/child.ts";
import { AdedError, messageOf } from "../errors.ts";

const STDERR_LINES = 10;

export interface BatchCostOptions {
  /** Path of llama-batch-cost. */
  program: string;
  /** Folder of the shared libraries it shall run on. */
  libraries: string;
  /** Whether the batch-invariant kernels are on; a build that has none ignores it. */
  batchInvariant: boolean;
  modelPath: string;
  threads: number;
  /** Cells of the KV cache. */
  cells: number;
  /** Type of the KV cache, as llama.cpp names it: f16, bf16, q8_0 … */
  cacheType: string;
  signal?: AbortSignal;
}

/** Logits of batches of `n` tokens against those of the same tokens one by one. */
export interface BatchCheck {
  n: number;
  /** Bitwise. */
  identical: boolean;
  /** Largest difference of a logit; null: not a finite number. */
  max_diff: number | null;
}

interface Pending {
  command: string;
  resolve(answer: Record<string, unknown>): void;
  reject(error: unknown): void;
}

export class BatchCost {
  readonly #child: ChildProcess;
  readonly #options: BatchCostOptions;
  readonly #exited: Promise<void>;
  readonly #stderr: string[] = [];
  #pending?: Pending;
  #dead?: unknown;

  /** Starts it; resolves when the model is loaded. @throws AdedError ADED_BENCH; the signal's reason when aborted */
  static async start(options: BatchCostOptions): Promise<BatchCost> {
    options.signal?.throwIfAborted();
    const tool = new BatchCost(options);
    try {
      await tool.fill(0);
      tool.#checkLibraries();
    } catch (error) {
      await tool.close();
      throw error;
    }
    return tool;
  }

  private constructor(options: BatchCostOptions) {
    this.#options = options;
    const { program, modelPath, threads, cells, cacheType, signal } = options;
    const child = spawnGroup(
      program,
      [
        ...["-m", modelPath, "-t", String(threads), "-c", String(cells), "-fa", "on"],
        ...["-ctk", cacheType, "-ctv", cacheType],
      ],
      { stdio: ["pipe", "pipe", "pipe"], env: environment(options) },
    );
    this.#child = child;
    // a write to a process that has just ended: its exit tells more
    (child.stdin as Writable).on("error", () => {});
    const output = createInterface({ input: child.stdout as Readable });
    output.on("line", (line) => this.#answer(line));
    createInterface({ input: child.stderr as Readable }).on("line", (line) => {
      this.#stderr.push(line);
      if (this.#stderr.length > STDERR_LINES) this.#stderr.shift();
    });
    const onAbort = (): void => {
      this.#fail(signal?.reason);
      this.#kill();
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#exited = new Promise((resolve) => {
      const end = (why: string): void => {
        signal?.removeEventListener("abort", onAbort);
        this.#fail(this.#error(why));
        resolve();
      };
      child.once("error", (error) => end(`could not be started: ${messageOf(error)}`));
      child.once("close", (code, name) => end(`ended with ${name ?? `status ${code}`}`));
    });
  }

  /** Fills the cache with `depth` tokens; what is measured afterwards comes behind them. */
  async fill(depth: number): Promise<void> {
    await this.#ask(`depth ${depth}`);
  }

  /** Decodes a batch of `n` tokens `reps` times, with the logits of all of them. @returns µs each */
  time(n: number, reps: number): Promise<number[]> {
    return this.#times(`time ${n} ${reps}`, reps);
  }

  /** The same with the logits of the last token alone, as a prompt is processed. @returns µs each */
  prefill(n: number, reps: number): Promise<number[]> {
    return this.#times(`prefill ${n} ${reps}`, reps);
  }

  /** Compares the logits of `tokens` tokens in batches of `n` with those of one-by-one decoding. */
  async check(n: number, tokens: number): Promise<BatchCheck> {
    const answer = await this.#ask(`check ${n} ${tokens}`);
    if (typeof answer.identical !== "boolean") throw this.#strange(`check ${n}`, answer);
    const { max_diff: maxDiff } = answer;
    return { n, identical: answer.identical, max_diff: typeof maxDiff === "number" ? maxDiff : null };
  }

  /** Reads `mib` MiB with all threads, `reps` times. @returns GB/s each */
  async memory(mib: number, reps: number): Promise<number[]> {
    const command = `memory ${mib} ${reps}`;
    return this.#numbers(command, (await this.#ask(command)).gb_s, reps);
  }

  /** What the libraries were built for, as llama.cpp tells it: "CPU : AVX2 = 1 | …". */
  async system(): Promise<string> {
    const answer = await this.#ask("info");
    if (typeof answer.system !== "string") throw this.#strange("info", answer);
    return answer.system;
  }

  /** Ends it at once: it holds nothing that is worth an orderly end. */
  async close(): Promise<void> {
    this.#kill();
    await this.#exited;
  }

  async #times(command: string, reps: number): Promise<number[]> {
    return this.#numbers(command, (await this.#ask(command)).us, reps);
  }

  #numbers(command: string, list: unknown, count: number): number[] {
    if (!Array.isArray(list) || list.length !== count || !list.every((each) => typeof each === "number")) {
      throw this.#strange(command, list);
    }
    return list;
  }

  #ask(command: string): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      if (this.#dead !== undefined) return reject(this.#dead);
      this.#pending = { command, resolve, reject };
      (this.#child.stdin as Writable).write(`${command}\n`);
    });
  }

  #answer(line: string): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    try {
      // C++ prints what is no finite number as inf or nan, which JSON doesn't know
      const answer: unknown = JSON.parse(line.replace(/:-?(inf|nan)\b/g, ":null"));
      if (typeof answer !== "object" || answer === null) throw this.#strange(pending.command, answer);
      if ("error" in answer) throw this.#error(`answered '${pending.command}': ${String(answer.error)}`);
      pending.resolve(answer as Record<string, unknown>);
    } catch (error) {
      pending.reject(error instanceof AdedError ? error : this.#strange(pending.command, line));
    }
  }

  #fail(error: unknown): void {
    this.#dead ??= error;
    this.#pending?.reject(this.#dead);
    this.#pending = undefined;
  }

  #kill(): void {
    if (this.#child.pid !== undefined) killGroup(this.#child.pid, "SIGKILL");
  }

  #error(what: string): AdedError {
    const tail = this.#stderr.map((line) => `\n${line}`).join("");
    return new AdedError("ADED_BENCH", `llama-batch-cost on ${this.#options.modelPath} ${what}${tail}`, {
      hint: "Is the model whole, is there memory for it (once per build), and is the cache type one of llama.cpp's? Models with a recurrent state cannot be measured.",
    });
  }

  #strange(command: string, answer: unknown): AdedError {
    const shown = typeof answer === "string" ? answer : JSON.stringify(answer);
    return this.#error(`answered '${command}' strangely: ${shown}`);
  }

  /** Libraries that are linked by absolute paths would be measured instead of those meant. Told on Linux only. */
  #checkLibraries(): void {
    const { libraries } = this.#options;
    let loaded: string | undefined;
    try {
      loaded = /\/.*\/libllama\.so.*/.exec(readFileSync(`/proc/${this.#child.pid}/maps`, "utf8"))?.[0];
    } catch {}
    if (loaded === undefined || loaded === realPath(path.join(libraries, "libllama.so"))) return;
    throw new AdedError(
      "ADED_BENCH",
      `llama-batch-cost runs on ${loaded}, not on the libraries in ${libraries}`,
      {
        hint: "Is LD_PRELOAD set? Otherwise remove that folder of the engine, and build it again (npx aded engine build).",
      },
    );
  }
}

function realPath(file: string): string | undefined {
  try {
    return realpathSync(file);
  } catch {
    return undefined;
  }
}

function environment({ libraries, batchInvariant }: BatchCostOptions): NodeJS.ProcessEnv {
  const name = process.platform === "darwin" ? "DYLD_LIBRARY_PATH" : "LD_LIBRARY_PATH";
  const others = process.env[name];
  return {
    ...process.env,
    [name]: others ? `${libraries}${path.delimiter}${others}` : libraries,
    GGML_CPU_BATCH_INVARIANT: batchInvariant ? "1" : "0",
  };
}

/** The counting workers of a build: hands out batches, at most a few per worker at a time, and collects what comes back. */
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { AdedError, type ErrorCode } from "../errors.ts";
import type { BatchDone, CountBatch, CountInput, FromWorker, PartDone, ToWorker } from "./build-messages.ts";

/** Batches that a worker may have waiting: enough to keep it busy, few enough to bound the memory. */
const MOST_WAITING = 3;
/** How long an orderly end of the workers may take, ms: a piece of text is done in a few. */
const STOP_GRACE_MS = 1000;

export interface CountWorkersOptions {
  count: number;
  input: Omit<CountInput, "worker" | "stop">;
  onDone(done: BatchDone): void;
  onPart(part: PartDone): void;
}

interface Member {
  worker: Worker;
  waiting: number;
  finished: boolean;
  exited: Promise<unknown>;
}

export class CountWorkers {
  readonly #members: Member[] = [];
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  readonly #options: CountWorkersOptions;
  #grams = 0;
  #checksum = 0;
  #failure: unknown;
  /** Wakes who waits for a free worker or for the end. */
  #wake: () => void = () => {};

  constructor(options: CountWorkersOptions) {
    this.#options = options;
    for (let i = 0; i < options.count; i++) {
      const workerData: CountInput = { ...options.input, worker: i, stop: this.#stop.buffer };
      const worker = new Worker(new URL("./build-worker-boot.mjs", import.meta.url), {
        name: `aded-count-${i}`,
        execArgv: [],
        workerData,
      });
      const exited = new Promise((resolve) => worker.once("exit", resolve));
      const member: Member = { worker, waiting: 0, finished: false, exited };
      this.#members.push(member);
      worker.on("message", (message: FromWorker) => this.#onMessage(member, message));
      worker.on("error", (error: unknown) => this.#fail(error));
      worker.on("exit", () => {
        if (!member.finished) this.#fail(new Error("a counting worker ended too early"));
      });
    }
  }

  /** Gives a batch to the worker with the fewest; resolves once that worker may have more. @throws what a worker failed with */
  async give(batch: CountBatch, signal?: AbortSignal): Promise<void> {
    for (;;) {
      signal?.throwIfAborted();
      this.#throwFailure();
      const member = this.#members.reduce((best, other) => (other.waiting < best.waiting ? other : best));
      if (member.waiting < MOST_WAITING) {
        member.waiting++;
        member.worker.postMessage(batch satisfies ToWorker, [batch.bytes.buffer as ArrayBuffer]);
        return;
      }
      await this.#change(signal);
    }
  }

  /** Waits until everything is counted and written. Returns the 3-grams counted, and their checksum. */
  async finish(signal?: AbortSignal): Promise<{ grams: number; checksum: number }> {
    for (const { worker } of this.#members) worker.postMessage({ type: "finish" } satisfies ToWorker);
    while (!this.#members.every(({ finished }) => finished)) {
      signal?.throwIfAborted();
      this.#throwFailure();
      await this.#change(signal);
    }
    return { grams: this.#grams, checksum: this.#checksum };
  }

  /**
   * Ends the workers, in order: one that is ended by force while its tokenizer is being loaded or freed takes the process with it. One
   * that is still loading ends by itself later.
   */
  async stop(): Promise<void> {
    Atomics.store(this.#stop, 0, 1);
    for (const member of this.#members) {
      member.finished = true;
      member.worker.postMessage({ type: "stop" } satisfies ToWorker);
    }
    const ended = Promise.all(this.#members.map(({ exited }) => exited));
    const grace = new AbortController();
    await Promise.race([ended, delay(STOP_GRACE_MS, undefined, { signal: grace.signal }).catch(() => {})]);
    grace.abort();
  }

  #onMessage(member: Member, message: FromWorker): void {
    switch (message.type) {
      case "done":
        member.waiting--;
        this.#options.onDone(message);
        break;
      case "part":
        this.#options.onPart(message);
        break;
      case "finished":
        member.finished = true;
        this.#grams += message.grams;
        this.#checksum = (this.#checksum + message.checksum) % 2 ** 32;
        break;
      case "failed":
        this.#fail(
          message.code === undefined
            ? new Error(message.message)
            : new AdedError(message.code as ErrorCode, message.message, { hint: message.hint }),
        );
        break;
      case "ready":
        break;
    }
    this.#wake();
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#wake();
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #change(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        signal?.removeEventListener("abort", wake);
        this.#wake = () => {};
        resolve();
      };
      this.#wake = wake;
      signal?.addEventListener("abort", wake, { once: true });
    });
  }
}

/**
 * The engine of a model that comes and goes: behind one `Engine` that the proxy keeps, a new process for each start. What a
 * start takes (fetching the file, making the engine, starting it) is one step here, which `stop` ends at any point.
 */
import { EventEmitter } from "node:events";
import type {
  DraftingSnapshot,
  Engine,
  EngineAddress,
  EngineEvents,
  EngineSnapshot,
} from "../engine/engine.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { ModelConfig } from "../options.ts";

export interface Drafting {
  readonly connected: boolean;
  snapshot(): DraftingSnapshot;
  stop(): Promise<void>;
}

export interface Launched {
  /** Not started yet. */
  engine: Engine;
  /** What drafts for it, once there is something. */
  drafting?: () => Drafting | undefined;
}

export interface FetchContext {
  signal: AbortSignal;
  /** Says what is being done, for those who wait. */
  note(text: string): void;
}

export interface LaunchContext extends FetchContext {
  /** Whatever the engine prints. */
  output(chunk: Buffer): void;
}

/** Fetches what the model needs and makes its engine. @throws AdedError; ADED_MEMORY when it does not fit */
export type Launch = (name: string, settings: ModelConfig, context: LaunchContext) => Promise<Launched>;

/** Fetches the model's file if it is not there, so that `launch` finds it. @throws AdedError */
export type Fetch = (settings: ModelConfig, context: FetchContext) => Promise<void>;

export interface ModelEngineOptions {
  launch: Launch;
  fetch?: Fetch;
  /** Longest start of the engine itself, ms; 0: no limit. */
  startMs: number;
  output(chunk: Buffer): void;
}

const NOWHERE: EngineAddress = { origin: "http://localhost", socketPath: "/nonexistent/aded.sock" };

export class ModelEngine extends EventEmitter<EngineEvents> implements Engine {
  readonly model: string;
  settings: ModelConfig;
  note?: string;
  readonly #options: ModelEngineOptions;
  #launched?: Launched;
  #life = new AbortController();
  #starting?: Promise<void>;
  #snapshot: EngineSnapshot;

  constructor(model: string, settings: ModelConfig, options: ModelEngineOptions) {
    super();
    this.model = model;
    this.settings = settings;
    this.#options = options;
    this.#snapshot = { model, state: "stopped", restarts: 0 };
  }

  get address(): EngineAddress {
    return this.#launched?.engine.address ?? NOWHERE;
  }

  get draftSocket(): string | undefined {
    return this.#launched?.engine.draftSocket;
  }

  get drafting(): Drafting | undefined {
    return this.#launched?.drafting?.();
  }

  snapshot(): EngineSnapshot {
    return this.#launched?.engine.snapshot() ?? this.#snapshot;
  }

  start(): Promise<void> {
    return this.#begin((signal) => this.#start(signal));
  }

  /** Fetches what a start needs, ahead of it. @throws AdedError */
  fetch(): Promise<void> {
    return this.#begin((signal) => this.#fetch(signal));
  }

  /** Ends a fetch that is under way: it rejects. */
  abandon(): void {
    this.#life.abort();
  }

  #begin(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.#life = new AbortController();
    this.#starting = work(this.#life.signal).finally(() => {
      this.note = undefined;
    });
    return this.#starting;
  }

  async stop(graceMs?: number): Promise<void> {
    this.#life.abort();
    await this.#release(graceMs);
    // a start that was on its way ends by itself now
    await this.#starting?.catch(() => {});
    await this.#release(graceMs);
    this.#set("stopped");
  }

  async #fetch(signal: AbortSignal): Promise<void> {
    this.#set("starting");
    try {
      await this.#options.fetch?.(this.settings, this.#context(signal));
      signal.throwIfAborted();
      this.#set("stopped");
    } catch (error) {
      throw this.#failed(error, signal);
    }
  }

  #context(signal: AbortSignal): FetchContext {
    return {
      signal,
      note: (text) => {
        this.note = text;
      },
    };
  }

  async #start(signal: AbortSignal): Promise<void> {
    this.#set("starting");
    try {
      const launched = await this.#options.launch(this.model, this.settings, {
        ...this.#context(signal),
        output: this.#options.output,
      });
      signal.throwIfAborted();
      this.#launched = launched;
      launched.engine.on("state", (snapshot) => this.emit("state", snapshot));
      this.note = "loading the model";
      await this.#bounded(launched.engine);
    } catch (error) {
      await this.#release(0);
      throw this.#failed(error, signal);
    }
  }

  /** Takes down why a start or a fetch failed, and makes an error of it. */
  #failed(error: unknown, signal: AbortSignal): AdedError {
    this.#set(signal.aborted ? "stopped" : "failed", signal.aborted ? undefined : firstLine(error));
    if (error instanceof AdedError) return error;
    return new AdedError("ADED_ENGINE_START", `${this.model} did not start: ${messageOf(error)}`, {
      cause: error,
    });
  }

  /** Starts the engine, but gives it no longer than it may take. */
  async #bounded(engine: Engine): Promise<void> {
    const { startMs } = this.#options;
    if (startMs === 0) return engine.start();
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      void engine.stop(0);
    }, startMs);
    try {
      await engine.start();
    } catch (error) {
      if (!late) throw error;
      throw new AdedError("ADED_ENGINE_START", `${this.model} was not ready within ${startMs / 1000} s`, {
        hint: "raise swap.start_seconds, or see the engine's log",
        cause: error,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  async #release(graceMs?: number): Promise<void> {
    const launched = this.#launched;
    if (launched === undefined) return;
    // first the drafter: it should not mistake the end of the engine for a fault
    await Promise.all([launched.drafting?.()?.stop(), launched.engine.stop(graceMs)]);
    launched.engine.removeAllListeners("state");
    this.#launched = undefined;
  }

  #set(state: EngineSnapshot["state"], reason?: string): void {
    this.#snapshot = { model: this.model, state, restarts: 0, reason };
    this.emit("state", this.snapshot());
  }
}

function firstLine(error: unknown): string {
  return messageOf(error).split("\n")[0].replace(/:$/, "");
}

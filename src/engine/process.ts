/**
 * A llama-server of our own: started, watched, started again when it dies, stopped. It listens on Unix sockets in a
 * private folder, so that nobody but us reaches it.
 */
import type { ChildProcess } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { rmSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { AdedError, messageOf } from "../errors.ts";
import { homePath } from "../home.ts";
import type { Log } from "../log.ts";
import { engineArguments, engineEnvironment } from "./args.ts";
import { killGroup, run, spawnGroup } from "./child.ts";
import {
  awaitGate,
  type Engine,
  type EngineAddress,
  type EngineEvents,
  type EngineSnapshot,
  type EngineState,
} from "./engine.ts";
import { EngineLog } from "./engine-log.ts";
import { measuresFile } from "./measures.ts";
import { EngineProbe } from "./probe.ts";
import { RestartPolicy, type RestartPolicyOptions } from "./restart-policy.ts";
import { createRunFolder, pickRunFolder, removeRunFolder } from "./run-folder.ts";

/** Between two looks at /health while the engine starts, ms. */
const POLL_MS = 50;
const STOP_GRACE_MS = 5000;

export interface EngineProcessOptions {
  /** Name of the model. */
  model: string;
  /** Path of llama-server. */
  serverPath: string;
  modelPath: string;
  /** Arguments of the user. @default none */
  args?: readonly string[];
  /** Environment of the user, added to our own. @default none */
  env?: Record<string, string>;
  /** False: no draft socket, also when the engine could have one. @default true */
  drafts?: boolean;
  log: Log;
  /** @default ADED_HOME/logs/MODEL.log */
  logFile?: string;
  /** Gets whatever the engine prints, beside the log file. */
  output?: (chunk: Buffer) => void;
  restart?: RestartPolicyOptions;
}

export class EngineProcess extends EventEmitter<EngineEvents> implements Engine {
  readonly model: string;
  readonly address: EngineAddress;
  beforeReady?: (signal: AbortSignal) => Promise<void>;
  readonly #options: EngineProcessOptions;
  readonly #folder: string;
  readonly #policy: RestartPolicy;
  readonly #log: Log;
  #draftSocket?: string;
  #keepsMeasures = false;
  #output?: EngineLog;
  #probe?: EngineProbe;
  #child?: ChildProcess;
  #state: EngineState = "stopped";
  #reason?: string;
  #kind?: "patched" | "stock";
  #restarts = 0;
  /** How the process came to its end last, e.g. "ended by SIGKILL". */
  #lastEnd = "";
  /** Aborted by stop(): ends waiting for health and for the next restart. */
  #life = new AbortController();

  constructor(options: EngineProcessOptions) {
    super();
    this.model = options.model;
    this.#options = options;
    this.#folder = pickRunFolder();
    this.#policy = new RestartPolicy(options.restart);
    this.#log = options.log.child({ model: options.model });
    this.address = { origin: "http://localhost", socketPath: path.join(this.#folder, "http.sock") };
  }

  /** Known once the engine was started: only then is it known whether the program takes a draft socket. */
  get draftSocket(): string | undefined {
    return this.#draftSocket;
  }

  /** File that holds what the engine printed. */
  get logFile(): string {
    return this.#options.logFile ?? homePath("logs", `${this.model.replace(/[^\w.-]+/g, "_")}.log`);
  }

  snapshot(): EngineSnapshot {
    return {
      model: this.model,
      state: this.#state,
      pid: this.#child?.pid,
      restarts: this.#restarts,
      reason: this.#reason,
      kind: this.#kind,
    };
  }

  async start(): Promise<void> {
    if (this.#state !== "stopped" && this.#state !== "failed") {
      throw new AdedError("ADED_ENGINE_START", `the engine of ${this.model} is ${this.#state} already`);
    }
    this.#life = new AbortController();
    this.#policy.reset();
    this.#setState("starting");
    try {
      this.#output ??= new EngineLog(this.logFile);
      removeRunFolder(this.#folder);
      createRunFolder(this.#folder);
      this.#probe ??= new EngineProbe(this.address);
      const flags = this.#options.drafts === false ? "" : await this.#flags();
      this.#draftSocket = /--draft-socket\b/.test(flags) ? path.join(this.#folder, "draft.sock") : undefined;
      this.#keepsMeasures = /--draft-measures\b/.test(flags);
      await this.#launch();
    } catch (error) {
      const stopped = this.#life.signal.aborted;
      await this.#cleanUp();
      this.#setState(
        stopped ? "stopped" : "failed",
        stopped ? undefined : messageOf(error).split("\n")[0].replace(/:$/, ""),
      );
      if (error instanceof AdedError) throw error;
      throw new AdedError(
        "ADED_ENGINE_START",
        `the engine of ${this.model} did not start: ${messageOf(error)}`,
        {
          cause: error,
        },
      );
    }
  }

  async stop(graceMs: number = STOP_GRACE_MS): Promise<void> {
    if (this.#state === "stopped") return;
    this.#life.abort();
    const child = this.#child;
    if (child?.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      this.#setState("stopping");
      const pid = child.pid;
      const gone = once(child, "exit");
      killGroup(pid, "SIGTERM");
      const timer = setTimeout(() => killGroup(pid, "SIGKILL"), graceMs);
      await gone;
      clearTimeout(timer);
    }
    await this.#cleanUp();
    this.#setState("stopped");
  }

  /** Starts the process once and waits until it is ready. @throws AdedError ADED_ENGINE_START */
  async #launch(): Promise<void> {
    const { serverPath, modelPath, args = [], env = {} } = this.#options;
    const socket = this.address.socketPath as string;
    const command = engineArguments({
      modelPath,
      httpSocket: socket,
      draftSocket: this.#draftSocket,
      measuresFile: this.#keepsMeasures ? measuresFile(serverPath, modelPath) : undefined,
      args,
    });
    // the sockets of an engine that died are still there, and would keep the next one from listening
    rmSync(socket, { force: true });
    if (this.#draftSocket !== undefined) rmSync(this.#draftSocket, { force: true });
    this.#output?.clearTail();
    this.#output?.write(Buffer.from(`\n$ ${[serverPath, ...command].join(" ")}\n`));
    const child = spawnGroup(serverPath, command, {
      env: engineEnvironment(env),
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk: Buffer) => {
        this.#output?.write(chunk);
        this.#options.output?.(chunk);
      });
    }
    const over = new AbortController();
    this.#lastEnd = "";
    const closed = new Promise<void>((resolve) => {
      child.once("error", (error) => {
        this.#lastEnd = messageOf(error);
        over.abort();
        resolve();
      });
      // "close", not "exit": by then all that it printed has been read
      child.once("close", (code, signal) => {
        this.#lastEnd ||= signal ? `ended by ${signal}` : `ended with status ${code}`;
        over.abort();
        resolve();
      });
    });

    const ready = await this.#untilReady(AbortSignal.any([over.signal, this.#life.signal]));
    if (this.#life.signal.aborted) {
      throw new AdedError("ADED_ENGINE_START", `the engine of ${this.model} was stopped while it started`);
    }
    if (!ready) {
      await closed;
      this.#child = undefined;
      throw new AdedError(
        "ADED_ENGINE_START",
        `the engine of ${this.model} ${this.#lastEnd} before it was ready:\n${this.#output?.tail() ?? ""}`,
        {
          hint: `its whole output is in ${this.logFile}; its arguments are in the config file (models.${this.model}.args)`,
        },
      );
    }
    this.#kind = await this.#probe?.kind(this.#life.signal);
    await awaitGate(this, AbortSignal.any([over.signal, this.#life.signal]), this.#log);
    if (this.#life.signal.aborted) {
      throw new AdedError("ADED_ENGINE_START", `the engine of ${this.model} was stopped while it started`);
    }
    if (over.signal.aborted) return this.#launchDied();
    this.#setState("ready");
    this.#log.info({ pid: child.pid, kind: this.#kind }, "engine ready");
    const readySince = performance.now();
    void closed.then(() => this.#onDeath(performance.now() - readySince));
  }

  #launchDied(): never {
    this.#child = undefined;
    throw new AdedError(
      "ADED_ENGINE_START",
      `the engine of ${this.model} ${this.#lastEnd} as soon as it was ready`,
      {
        hint: `its output is in ${this.logFile}`,
      },
    );
  }

  async #untilReady(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      if ((await this.#probe?.health(signal))?.ready) return !signal.aborted;
      await delay(POLL_MS, undefined, { signal }).catch(() => {});
    }
    return false;
  }

  /** The process died: start it again after a while, unless it dies all the time or was meant to stop. */
  async #onDeath(readyFor: number): Promise<void> {
    this.#child = undefined;
    const { signal } = this.#life;
    for (let lasted = readyFor; !signal.aborted; lasted = 0) {
      const reason = this.#lastEnd;
      const wait = this.#policy.onDeath(performance.now(), lasted);
      if (wait === undefined) {
        this.#log.error({ reason, logFile: this.logFile }, "engine died too often, giving up");
        await this.#cleanUp();
        this.#setState("failed", `died too often, last: ${reason}; its output is in ${this.logFile}`);
        return;
      }
      this.#setState("restarting", `the engine ${reason}`);
      this.#log.warn({ reason, wait_ms: wait, logFile: this.logFile }, "engine died, starting it again");
      try {
        await delay(wait, undefined, { signal });
        this.#restarts++;
        await this.#launch();
        return;
      } catch (error) {
        if (!signal.aborted) this.#log.warn({ err: error }, "engine did not come back");
      }
    }
  }

  /** The program's own list of what it takes. */
  async #flags(): Promise<string> {
    const { stdout } = await run(this.#options.serverPath, ["--help"], { signal: this.#life.signal });
    return stdout;
  }

  /** Also kills what may still run: a start that was stopped half-way. */
  async #cleanUp(): Promise<void> {
    const child = this.#child;
    if (child?.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      killGroup(child.pid, "SIGKILL");
      await gone;
    }
    this.#child = undefined;
    await this.#probe?.close();
    this.#probe = undefined;
    this.#output?.close();
    this.#output = undefined;
    removeRunFolder(this.#folder);
  }

  #setState(state: EngineState, reason?: string): void {
    this.#state = state;
    this.#reason = reason;
    this.emit("state", this.snapshot());
  }
}

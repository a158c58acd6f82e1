/** An engine that runs elsewhere, patched or stock: nothing is started, it is only looked at. */
import { EventEmitter } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { AdedError } from "../errors.ts";
import type { Log } from "../log.ts";
import {
  awaitGate,
  type Engine,
  type EngineAddress,
  type EngineEvents,
  type EngineSnapshot,
  type EngineState,
} from "./engine.ts";
import { EngineProbe } from "./probe.ts";

export interface RemoteEngineOptions {
  /** Name of the model. */
  model: string;
  /** http://HOST:PORT or unix:/PATH. */
  engine: string;
  /** Its --draft-socket, if it has one. */
  draftSocket?: string;
  apiKey?: string;
  log: Log;
  /** Between two looks at it while it is not ready, ms. @default 500 */
  retryMs?: number;
  /** Between two looks at it while it is ready, ms. @default 5000 */
  pollMs?: number;
}

/** "unix:/run/llama.sock" or "/run/llama.sock" → that socket; "http://host:1/" → "http://host:1". */
export function parseAddress(engine: string): EngineAddress {
  const socketPath = /^(?:unix:(?:\/\/)?)?(\/.*)$/.exec(engine)?.[1];
  if (socketPath !== undefined) return { origin: "http://localhost", socketPath };
  let url: URL;
  try {
    url = new URL(engine);
  } catch (error) {
    throw new AdedError("ADED_CONFIG", `"${engine}" is no address of an engine`, {
      cause: error,
      hint: "write http://HOST:PORT or unix:/PATH",
    });
  }
  if (url.pathname !== "/" || url.search !== "") {
    throw new AdedError("ADED_CONFIG", `the address of an engine ends after the port, "${engine}" does not`, {
      hint: `write ${url.origin}`,
    });
  }
  return { origin: url.origin };
}

export class RemoteEngine extends EventEmitter<EngineEvents> implements Engine {
  readonly model: string;
  readonly address: EngineAddress;
  readonly draftSocket?: string;
  beforeReady?: (signal: AbortSignal) => Promise<void>;
  readonly #options: RemoteEngineOptions;
  readonly #log: Log;
  #state: EngineState = "stopped";
  #reason?: string;
  #kind?: "patched" | "stock";
  #restarts = 0;
  #life = new AbortController();
  #watching?: Promise<void>;

  constructor(options: RemoteEngineOptions) {
    super();
    this.model = options.model;
    this.address = parseAddress(options.engine);
    this.draftSocket = options.draftSocket;
    this.#options = options;
    this.#log = options.log.child({ model: options.model });
  }

  get authorization(): string | undefined {
    const { apiKey } = this.#options;
    return apiKey === undefined ? undefined : `Bearer ${apiKey}`;
  }

  snapshot(): EngineSnapshot {
    return {
      model: this.model,
      state: this.#state,
      restarts: this.#restarts,
      reason: this.#reason,
      kind: this.#kind,
    };
  }

  /** Resolves when the engine answers, however long that takes: it is started by somebody else. Rejects when stopped before. */
  async start(): Promise<void> {
    if (this.#state !== "stopped") {
      throw new AdedError("ADED_ENGINE_START", `the engine of ${this.model} is ${this.#state} already`);
    }
    this.#life = new AbortController();
    this.#setState("starting");
    await new Promise<void>((resolve, reject) => {
      this.#watching = this.#watch(resolve).finally(() => {
        reject(
          new AdedError("ADED_ENGINE_START", `stopped waiting for the engine at ${this.#options.engine}`),
        );
      });
    });
  }

  async stop(): Promise<void> {
    this.#life.abort();
    await this.#watching;
    if (this.#state !== "stopped") this.#setState("stopped");
  }

  async #watch(onReady: () => void): Promise<void> {
    const { apiKey, retryMs = 500, pollMs = 5000, engine } = this.#options;
    const { signal } = this.#life;
    const probe = new EngineProbe(this.address, { apiKey });
    try {
      while (!signal.aborted) {
        const { ready, reason } = await probe.health(signal);
        if (signal.aborted) return;
        if (ready && this.#state !== "ready") {
          // it may be another program than the one that answered before
          this.#kind = await probe.kind(signal);
          await awaitGate(this, signal, this.#log);
          if (signal.aborted) return;
          this.#setState("ready");
          this.#log.info({ engine, kind: this.#kind }, "engine ready");
          onReady();
        } else if (!ready && this.#state === "ready") {
          this.#restarts++;
          this.#setState("restarting", reason);
          this.#log.warn({ engine, reason }, "engine does not answer any more");
        } else if (!ready && reason !== this.#reason) {
          this.#setState(this.#state, reason);
          this.#log.warn({ engine, reason }, "waiting for the engine");
        }
        await delay(this.#state === "ready" ? pollMs : retryMs, undefined, { signal }).catch(() => {});
      }
    } finally {
      await probe.close();
    }
  }

  #setState(state: EngineState, reason?: string): void {
    this.#state = state;
    this.#reason = reason;
    this.emit("state", this.snapshot());
  }
}

/**
 * The main thread's handle on drafting: starts the worker thread that drafts, starts it again when it dies, and knows its
 * last status. Whatever happens in the worker, the proxy goes on and the engine decodes without drafts.
 */
import { EventEmitter, once } from "node:events";
import { Worker } from "node:worker_threads";
import { DEFAULT_MATRIX_BYTES, type DrafterOptions } from "../drafter/options.ts";
import type { DraftingSnapshot } from "../engine/engine.ts";
import { messageOf } from "../errors.ts";
import type { LinkLog } from "./client.ts";
import { type CorporaOptions, FloorLoader, floorBound } from "./floor-loader.ts";
import { drafterHeaps } from "./garbage-collector.ts";
import { LatencyRing } from "./latency.ts";
import type { WatchedStep } from "./watch.ts";
import type { FloorData, MainMessage, StatusMessage, WorkerInput, WorkerMessage } from "./worker-messages.ts";

export interface DraftingHostOptions {
  /** Path of the engine's draft socket; it need not exist yet. */
  socketPath: string;
  /** Successors per node to ask the engine for, 1 … 64. @default 12 */
  topK?: number;
  /** @default {} */
  drafter?: DrafterOptions;
  /** What the drafter knows before it has learnt anything. @default none */
  corpora?: CorporaOptions;
  /** File without ending where what is learnt is kept, and seconds between snapshots. @default nothing is kept */
  snapshots?: { base: string; everySeconds: number };
  log: LinkLog;
  /** URL of a module that exports a Drafter class named AdedDrafter. @default this program's drafter */
  drafterModule?: string;
  /** Time between status messages of the worker, ms. @default 250 */
  statusMs?: number;
  /** File that what the drafter is told is appended to, for replays. @default none */
  record?: string;
  /** Waits before a dead worker is started again double from `firstMs` to `maxMs`. @default 100 … 10000 ms */
  restart?: { firstMs: number; maxMs: number };
}

export interface DraftingHostEvents {
  /** What a step verified; only while somebody listens. */
  steps: [steps: WatchedStep[]];
  /** After every status message of the worker, and when it died. */
  status: [snapshot: DraftingSnapshot];
}

/** A worker that lived as long as this is started again at once when it dies, ms. */
const STABLE_MS = 30_000;
const STOP_GRACE_MS = 2000;

export class DraftingHost extends EventEmitter<DraftingHostEvents> {
  readonly #options: DraftingHostOptions;
  readonly #firstMs: number;
  readonly #maxMs: number;
  readonly #draftLatency = new LatencyRing();
  readonly #linkLatency = new LatencyRing();
  readonly #exchangeLatency = new LatencyRing();
  readonly #corpora: FloorLoader | undefined;
  #worker: Worker | undefined;
  #status: StatusMessage | undefined;
  #running = false;
  #restarts = 0;
  #waitMs: number;
  #startedAt = 0;
  #retry: NodeJS.Timeout | undefined;
  /** Purges that wait for their answer. */
  readonly #purges = new Map<number, (found: boolean) => void>();
  #purgeCount = 0;

  constructor(options: DraftingHostOptions) {
    super();
    this.#options = options;
    this.#firstMs = options.restart?.firstMs ?? 100;
    this.#maxMs = options.restart?.maxMs ?? 10_000;
    this.#waitMs = this.#firstMs;
    if (options.corpora !== undefined && options.corpora.corpora.length > 0) {
      this.#corpora = new FloorLoader({
        ...options.corpora,
        bound: this.#floorBound,
        log: options.log,
        onEnd: () => this.#giveFloor(),
      });
    }
  }

  /** How often the worker was started again after it died. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Starts the worker and returns at once; `status` tells when the link is up. */
  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#waitMs = this.#firstMs;
    this.#spawn();
    if (this.#corpora?.reading) this.#corpora.start();
  }

  /**
   * Resolves with true once the link is up, with false after `timeoutMs`, when aborted, or when stopped. Whoever waits has
   * seen the engine answer, so an attempt to connect is made at once.
   */
  async linked(timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
    const over = AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal === undefined ? [] : [signal])]);
    this.retryNow();
    while (!this.connected) {
      if (!this.#running || over.aborted) return false;
      await once(this, "status", { signal: over }).catch(() => {});
    }
    return true;
  }

  /** Ends a wait between two attempts to connect: there is reason to believe that the engine listens now. */
  retryNow(): void {
    const retry: MainMessage = { type: "retry" };
    this.#worker?.postMessage(retry);
  }

  /** Ends the connection and the worker; resolves when it is gone, after 2 s at the latest. */
  async stop(): Promise<void> {
    this.#running = false;
    clearTimeout(this.#retry);
    this.#corpora?.stop();
    const worker = this.#worker;
    if (worker === undefined) return;
    // not events.once(), which throws when the worker crashes first
    const gone = new Promise((resolve) => worker.once("exit", resolve));
    const stop: MainMessage = { type: "stop" };
    worker.postMessage(stop);
    const overdue = setTimeout(() => void worker.terminate(), STOP_GRACE_MS);
    await gone;
    clearTimeout(overdue);
  }

  /** Calls the listener with what each step verified. @returns ends that */
  watch(listener: (steps: WatchedStep[]) => void): () => void {
    this.on("steps", listener);
    this.#tellWatch();
    return () => {
      this.off("steps", listener);
      this.#tellWatch();
    };
  }

  #tellWatch(): void {
    const message: MainMessage = { type: "watch", on: this.listenerCount("steps") > 0 };
    this.#worker?.postMessage(message);
  }

  /**
   * Forgets what a scope learnt, in memory and on disk. Resolves with false if there is no such scope.
   * @throws Error when the drafter ended before it answered
   */
  async purge(scope: string): Promise<boolean> {
    const worker = this.#worker;
    if (worker === undefined) throw new Error("the drafter is not running; try again once it is");
    const purge = ++this.#purgeCount;
    const message: MainMessage = { type: "purge", purge, scope };
    return await new Promise<boolean>((resolve, reject) => {
      const died = (): void => {
        this.#purges.delete(purge);
        reject(new Error("the drafter ended before it had forgotten the scope; purge it again"));
      };
      worker.once("exit", died);
      this.#purges.set(purge, (found) => {
        worker.off("exit", died);
        this.#purges.delete(purge);
        resolve(found);
      });
      worker.postMessage(message);
    });
  }

  /** Whether drafts are possible now; as cheap as a field, unlike the snapshot. */
  get connected(): boolean {
    return this.#running && this.#status?.link === "connected";
  }

  /** For /aded/status; counts are at most `statusMs` old, and null where nothing was measured yet. */
  snapshot(): DraftingSnapshot {
    const stats = this.#status?.stats;
    return {
      link: this.#running ? (this.#status?.link ?? "connecting") : "off",
      tree: this.#status?.tree,
      steps: stats?.steps ?? 0,
      tokens: stats?.tokens ?? 0,
      tokens_per_step: stats === undefined || stats.steps === 0 ? null : stats.tokensPerStep,
      draft_us: this.#draftLatency.quantiles(),
      link_us: this.#linkLatency.quantiles(),
      exchange_us: this.#exchangeLatency.quantiles(),
      cost_us: stats?.costUs ?? {},
      exactness: this.#status?.exactness,
      matrix: stats?.matrix ?? { rows: 0, bytes: 0, limit: 0 },
      controller: stats?.controller ?? { asleep: 0, nodes: 0 },
      acceptance: stats?.acceptance,
      corpora: this.#corpora?.snapshot(),
      drafted_nodes: stats?.draftedNodes ?? 0,
      accepted_nodes: stats?.acceptedNodes ?? 0,
      late: this.#status?.counters.late ?? 0,
      refused: this.#status?.counters.refused ?? 0,
      restarts: this.#restarts,
      gc: this.#status?.garbage,
    };
  }

  #spawn(): void {
    const {
      socketPath,
      topK = 12,
      drafter = {},
      drafterModule,
      statusMs = 250,
      record,
      log,
      snapshots,
    } = this.#options;
    const workerData: WorkerInput = {
      socketPath,
      topK,
      drafterModule: drafterModule ?? new URL("./drafter-module.ts", import.meta.url).href,
      drafterOptions: this.#corpora?.usable ? { ...drafter, floorBytes: this.#floorBound } : drafter,
      floor: this.#floorData(),
      draftLatency: this.#draftLatency.buffer,
      linkLatency: this.#linkLatency.buffer,
      exchangeLatency: this.#exchangeLatency.buffer,
      statusMs,
      snapshots:
        snapshots === undefined
          ? undefined
          : { base: snapshots.base, everyMs: snapshots.everySeconds * 1000 },
      record,
    };
    drafterHeaps(true);
    const worker = new Worker(new URL("./worker-boot.mjs", import.meta.url), {
      name: "aded-drafter",
      execArgv: [],
      workerData,
    });
    this.#worker = worker;
    worker.once("online", () => drafterHeaps(false));
    if (this.listenerCount("steps") > 0) this.#tellWatch();
    this.#startedAt = performance.now();
    let reason = "it ended by itself";
    worker.on("message", (message: WorkerMessage) => this.#onMessage(message));
    worker.on("error", (error: unknown) => {
      reason = messageOf(error);
      log.error({ err: error, reason }, "the drafter's worker thread crashed");
    });
    worker.on("exit", (status) => {
      drafterHeaps(false);
      this.#worker = undefined;
      this.#onExit(status, reason);
    });
  }

  get #floorBound(): number {
    return floorBound(this.#options.drafter?.matrixBytes ?? DEFAULT_MATRIX_BYTES);
  }

  #floorData(): FloorData | undefined {
    const floor = this.#corpora?.floor;
    if (floor === undefined) return undefined;
    const files = this.#options.corpora?.corpora.map(({ file }) => file) ?? [];
    return { buffer: floor.buffer, vocabHash: floor.vocabHash, files };
  }

  /** Tells the worker what became of the corpora. */
  #giveFloor(): void {
    const message: MainMessage = { type: "floor", floor: this.#floorData() };
    this.#worker?.postMessage(message);
    this.emit("status", this.snapshot());
  }

  #onMessage(message: WorkerMessage): void {
    if (message.type === "log") {
      this.#options.log[message.level](message.fields, message.message);
      return;
    }
    if (message.type === "steps") {
      this.emit("steps", message.steps);
      return;
    }
    if (message.type === "purged") {
      this.#purges.get(message.purge)?.(message.found);
      return;
    }
    this.#status = message;
    if (message.floorRefused !== undefined) {
      this.#corpora?.refuse(message.floorRefused.reason, message.floorRefused.hint);
    }
    this.emit("status", this.snapshot());
  }

  #onExit(status: number, reason: string): void {
    if (this.#status !== undefined) this.#status = { ...this.#status, link: "connecting" };
    if (this.#running) {
      if (performance.now() - this.#startedAt >= STABLE_MS) this.#waitMs = this.#firstMs;
      const fields = { status, reason, retry_ms: this.#waitMs };
      this.#options.log.warn(fields, "drafting is down, decoding goes on without drafts");
      this.#retry = setTimeout(() => {
        this.#restarts++;
        this.#spawn();
      }, this.#waitMs);
      this.#waitMs = Math.min(this.#waitMs * 2, this.#maxMs);
    }
    this.emit("status", this.snapshot());
  }
}

/**
 * All models of the config and what the scheduler wants of them: carries out its effects (engines, timers, answers to those
 * who wait) and tells it what came of them.
 */
import type { DraftingSnapshot } from "../engine/engine.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Config, ModelConfig } from "../options.ts";
import type { GateStatus, ModelGate, Visit, Visitor } from "./gate.ts";
import { IdTable } from "./id-table.ts";
import { LogRing } from "./log-ring.ts";
import { type Fetch, type Launch, ModelEngine } from "./model-engine.ts";
import type { SchedulerRules } from "./rules.ts";
import { type Effect, type Refusal, Scheduler, type SchedulerEvent } from "./scheduler.ts";

export interface FleetEvents {
  /** A model's engine was started, is ready, was stopped, or failed. */
  changed(model: string, what: "starting" | "ready" | "stopped" | "failed", ms: number): void;
  refused(model: string, kind: Refusal["kind"]): void;
}

export interface FleetOptions {
  launch: Launch;
  /** Fetches a model's file, before anything is stopped for it. */
  fetch?: Fetch;
  /** Would `fetch` have something to do? Asked when a stopped model is wanted. @default nothing */
  absent?: (settings: ModelConfig) => boolean;
  log: Log;
  events?: Partial<FleetEvents>;
  /** From SIGTERM to SIGKILL when a model is stopped, ms. @default 5000 */
  graceMs?: number;
  /** ms of a steady clock. @default performance.now */
  now?: () => number;
}

/** The group of all models that the config puts into none. */
const REST = "(rest)";
const BACKOFF = { backoffFirstMs: 2000, backoffMaxMs: 60_000 };

type ModelSettings = Pick<Config, "models" | "groups" | "swap">;

/** What the scheduler has to know of a config. Engines that run elsewhere need no room here. */
export function rulesOf({ models, groups, swap }: ModelSettings): SchedulerRules {
  const groupOf = new Map(
    Object.entries(groups).flatMap(([name, { members }]) => members.map((member) => [member, name] as const)),
  );
  return {
    models: new Map(
      Object.entries(models).map(([name, model]) => [
        name,
        {
          group: groupOf.get(name) ?? REST,
          pinned: model.pinned || model.engine !== undefined,
          ttlMs: model.engine !== undefined ? 0 : (model.ttl ?? swap.ttl) * 1000,
          maxRunning: model.max_running,
        },
      ]),
    ),
    groups: new Map(Object.entries(groups)),
    queueMax: swap.queue_max,
    queueMs: swap.queue_seconds * 1000,
    residencyMs: swap.min_residency_seconds * 1000,
    ...BACKOFF,
  };
}

/** Names of the models that are started with the server. */
export function preloaded({ models }: Pick<Config, "models">): string[] {
  const entries = Object.entries(models);
  const named = entries.filter(([, { preload, pinned }]) => preload ?? pinned).map(([name]) => name);
  const remote = entries.filter(([, { engine }]) => engine !== undefined).map(([name]) => name);
  const silent = entries.every(([, { preload, pinned }]) => preload === undefined && !pinned);
  return [...new Set([...named, ...remote, ...(silent ? entries.slice(0, 1).map(([name]) => name) : [])])];
}

/** Do two settings of a model need different engines? */
export function needsRestart(before: ModelConfig, after: ModelConfig): boolean {
  const essence = ({
    source,
    engine,
    draft_socket,
    engine_api_key,
    args,
    env,
    drafts,
  }: ModelConfig): string =>
    JSON.stringify({ source, engine, draft_socket, engine_api_key, args, env, drafts });
  return essence(before) !== essence(after);
}

export class Fleet implements ModelGate {
  readonly #options: FleetOptions;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #scheduler: Scheduler;
  readonly #models = new Map<string, ModelEngine>();
  readonly #logs = new Map<string, LogRing>();
  readonly #visitors = new IdTable<{ model: string; visitor: Visitor }>();
  readonly #since = new Map<string, number>();
  /** Why each model's last start failed. */
  readonly #errors = new Map<string, AdedError>();
  #settings: ModelSettings;
  #nextId = 1;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #closed = false;

  constructor(settings: ModelSettings, options: FleetOptions) {
    this.#settings = settings;
    this.#options = options;
    this.#log = options.log;
    this.#now = options.now ?? (() => performance.now());
    this.#scheduler = new Scheduler(rulesOf(settings));
    for (const [name, model] of Object.entries(settings.models)) this.#add(name, model);
  }

  /** The engines, in the config's order. */
  get engines(): ModelEngine[] {
    return Object.keys(this.#settings.models).flatMap((name) => this.#models.get(name) ?? []);
  }

  drafting(model: string): DraftingSnapshot | undefined {
    return this.#models.get(model)?.drafting?.snapshot();
  }

  linkUp(model: string): boolean {
    return this.#models.get(model)?.drafting?.connected ?? false;
  }

  /** What the model's engine printed last; undefined: there is no such model. */
  logOf(model: string): LogRing | undefined {
    return this.#logs.get(model);
  }

  /** Requests that wait, of all models. */
  get waiting(): number {
    return this.#scheduler.waiting;
  }

  status(model: string): GateStatus | undefined {
    const view = this.#scheduler.view(model);
    if (view === undefined) return undefined;
    const phase = view.fetching ? "starting" : view.phase;
    return { ...view, phase, note: this.#models.get(model)?.note };
  }

  enter(model: string, visitor: Visitor, options: { quiet?: boolean } = {}): Visit {
    const id = this.#nextId++;
    this.#visitors.set(id, { model, visitor });
    this.#send({ type: "request", id, model, quiet: options.quiet, absent: this.#absent(model) });
    let left = false;
    return {
      leave: () => {
        if (left) return;
        left = true;
        this.#visitors.delete(id);
        this.#send({ type: "leave", id });
      },
      progress: () => {
        const ahead = this.#scheduler.positionOf(id);
        if (ahead === undefined) return undefined;
        const { phase = "stopped", note } = this.status(model) ?? {};
        return { model, state: phase, ahead, note };
      },
    };
  }

  load(model: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const refused = (refusal: Refusal): void => {
        const cause = refusal.kind === "start-failed" ? this.#errors.get(model) : undefined;
        reject(cause ?? refusalError(model, refusal));
      };
      this.#visitors.set(id, { model, visitor: { granted: resolve, refused } });
      this.#send({ type: "load", id, model, absent: this.#absent(model) });
    });
  }

  async unload(model: string): Promise<void> {
    const engine = this.#models.get(model);
    if (engine === undefined) throw refusalError(model, { kind: "removed" });
    if (this.#scheduler.view(model)?.fetching) {
      const ended = new Promise<void>((resolve) => engine.once("state", () => setImmediate(resolve)));
      // who waits for its file is told
      engine.abandon();
      return ended;
    }
    const starts = this.#scheduler.view(model)?.starts;
    this.#send({ type: "unload", model });
    const gone = (): boolean => {
      const view = this.#scheduler.view(model);
      return view === undefined || view.phase === "stopped" || view.starts !== starts;
    };
    while (!gone()) await new Promise<void>((resolve) => engine.once("state", () => setImmediate(resolve)));
  }

  /** Takes over other settings. Models whose engine they change are started anew once their requests are done. */
  apply(settings: ModelSettings): { added: string[]; removed: string[]; restarted: string[] } {
    const before = this.#settings.models;
    const names = Object.keys(settings.models);
    const added = names.filter((name) => before[name] === undefined);
    const removed = Object.keys(before).filter((name) => settings.models[name] === undefined);
    const restarted = names.filter(
      (name) => before[name] !== undefined && needsRestart(before[name], settings.models[name]),
    );
    this.#settings = settings;
    for (const [name, model] of Object.entries(settings.models)) this.#add(name, model);
    // what is fetched for the settings before is not wanted any more
    for (const name of [...removed, ...restarted])
      if (this.#scheduler.view(name)?.fetching) this.#models.get(name)?.abandon();
    this.#send({ type: "rules", rules: rulesOf(settings), changed: restarted });
    const wanted = preloaded(settings);
    for (const name of added.filter((each) => wanted.includes(each))) {
      this.load(name).catch((error: unknown) =>
        this.#log.error({ model: name, err: error }, "not preloaded"),
      );
    }
    return { added, removed, restarted: restarted.filter((name) => this.status(name)?.phase !== "stopped") };
  }

  async close(graceMs?: number): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await Promise.all([...this.#models.values()].map((model) => model.stop(graceMs)));
  }

  #add(name: string, settings: ModelConfig): void {
    const known = this.#models.get(name);
    if (known !== undefined) {
      known.settings = settings;
      return;
    }
    const ring = this.#logs.get(name) ?? new LogRing();
    this.#logs.set(name, ring);
    const engine = new ModelEngine(name, settings, {
      launch: this.#options.launch,
      fetch: this.#options.fetch,
      startMs: settings.engine === undefined ? this.#settings.swap.start_seconds * 1000 : 0,
      output: (chunk) => ring.write(chunk),
    });
    engine.on("state", ({ state, reason }) => {
      if (state !== "failed" || this.#scheduler.view(name)?.phase !== "ready") return;
      const error = reason ?? "the engine failed";
      // what is left of it goes before it may be started again
      void engine.stop(0).finally(() => this.#send({ type: "died", model: name, error }));
    });
    this.#models.set(name, engine);
  }

  #send(event: SchedulerEvent): void {
    if (this.#closed) return;
    const effects = this.#scheduler.handle(event, this.#now());
    for (const effect of effects) this.#carryOut(effect);
    this.#arm();
  }

  #arm(): void {
    const { wakeAt } = this.#scheduler;
    if (wakeAt >= this.#timerAt || this.#closed) return;
    clearTimeout(this.#timer);
    this.#timerAt = wakeAt;
    const ms = Math.min(2 ** 31 - 1, Math.max(0, Math.ceil(wakeAt - this.#now())));
    this.#timer = setTimeout(() => {
      this.#timerAt = Number.POSITIVE_INFINITY;
      this.#send({ type: "tick" });
    }, ms);
    this.#timer.unref();
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case "grant":
        this.#visitors.get(effect.id)?.visitor.granted();
        return;
      case "refuse": {
        const known = this.#visitors.get(effect.id);
        this.#visitors.delete(effect.id);
        if (known === undefined) return;
        this.#options.events?.refused?.(known.model, effect.refusal.kind);
        known.visitor.refused(effect.refusal);
        return;
      }
      case "fetch":
        void this.#fetch(effect.model);
        return;
      case "start":
        void this.#start(effect.model);
        return;
      case "stop":
        void this.#stop(effect.model);
        return;
    }
  }

  /** Must its file be fetched before it can be started? */
  #absent(model: string): boolean {
    const { absent } = this.#options;
    const settings = this.#settings.models[model];
    if (absent === undefined || settings === undefined) return false;
    return this.#scheduler.view(model)?.phase === "stopped" && absent(settings);
  }

  async #fetch(model: string): Promise<void> {
    const engine = this.#models.get(model);
    if (engine === undefined) return;
    const settings = this.#settings.models[model];
    this.#log.info({ model, source: settings.source }, "fetching the model file");
    try {
      await engine.fetch();
      this.#send({ type: "fetched", model });
    } catch (error) {
      const now = this.#settings.models[model];
      if (this.#closed || now === undefined) return;
      if (needsRestart(settings, now)) return this.#fetch(model);
      const { text } = this.#fault(model, error, "the model file could not be fetched");
      this.#send({ type: "fetch-failed", model, error: text });
    }
  }

  /** Takes down and logs why a model did not start. */
  #fault(model: string, error: unknown, what: string): { crowded: boolean; text: string } {
    if (error instanceof AdedError) this.#errors.set(model, error);
    const crowded = error instanceof AdedError && error.code === "ADED_MEMORY";
    const hint = error instanceof AdedError && error.hint !== undefined ? ` (${error.hint})` : "";
    if (!crowded) this.#log.error({ model, err: error }, what);
    this.#changed(model, "failed");
    return { crowded, text: `${messageOf(error)}${hint}` };
  }

  async #start(model: string): Promise<void> {
    const engine = this.#models.get(model);
    if (engine === undefined) return;
    this.#changed(model, "starting");
    try {
      await engine.start();
      this.#changed(model, "ready");
      this.#send({ type: "started", model });
    } catch (error) {
      if (this.#closed) return;
      if (this.#scheduler.view(model)?.phase !== "starting") return; // it was stopped; #stop tells
      const { crowded, text } = this.#fault(model, error, "the model could not be started");
      this.#send({ type: crowded ? "no-room" : "start-failed", model, error: text });
    }
  }

  async #stop(model: string): Promise<void> {
    try {
      await this.#models.get(model)?.stop(this.#options.graceMs);
    } catch (error) {
      this.#log.error({ model, err: error }, "the engine could not be stopped in order");
    }
    this.#changed(model, "stopped");
    this.#send({ type: "stopped", model });
    if (this.#settings.models[model] === undefined) {
      this.#models.delete(model);
      this.#logs.delete(model);
    }
  }

  #changed(model: string, what: "starting" | "ready" | "stopped" | "failed"): void {
    const now = this.#now();
    const ms = Math.round(now - (this.#since.get(model) ?? now));
    this.#since.set(model, now);
    this.#log.info({ model, ms }, `model ${what}`);
    this.#options.events?.changed?.(model, what, ms);
  }
}

/** The refusal as an error, for those who load a model by hand. */
export function refusalError(model: string, refusal: Refusal): AdedError {
  if (refusal.kind === "removed")
    return new AdedError("ADED_MODEL_UNKNOWN", `there is no model '${model}' in the config`);
  const text = refusal.kind === "start-failed" ? refusal.error : `${model}: ${refusal.kind}`;
  return new AdedError("ADED_ENGINE_START", text);
}

/** A world for the scheduler: engines that start and stop when the test says so, a clock that it sets, and the rules checked at every step. */
import { conflicts, type GroupRules, type ModelRules, type SchedulerRules } from "../../../src/swap/rules.ts";
import { type Effect, Scheduler, type SchedulerEvent } from "../../../src/swap/scheduler.ts";

export function rulesOf(
  models: Record<string, Partial<ModelRules>>,
  options: Partial<Omit<SchedulerRules, "models" | "groups">> & {
    groups?: Record<string, Partial<GroupRules>>;
  } = {},
): SchedulerRules {
  const { groups = {}, ...rest } = options;
  return {
    models: new Map(
      Object.entries(models).map(([name, rules]) => [
        name,
        { group: "default", pinned: false, ttlMs: 0, maxRunning: 0, ...rules },
      ]),
    ),
    groups: new Map(
      Object.entries(groups).map(([name, rules]) => [
        name,
        { swap: true, exclusive: true, persistent: false, ...rules },
      ]),
    ),
    queueMax: 100,
    queueMs: 1e6,
    residencyMs: 0,
    backoffFirstMs: 1000,
    backoffMaxMs: 60_000,
    ...rest,
  };
}

export class World {
  readonly scheduler: Scheduler;
  rules: SchedulerRules;
  now = 0;
  /** What each engine does; absent: stopped. */
  readonly engines = new Map<string, "starting" | "ready" | "stopping">();
  /** Models whose file is not there, and those whose file is on its way. */
  readonly absent = new Set<string>();
  readonly fetching = new Set<string>();
  /** Outcome of each request: waiting, running, over, or why it was refused. */
  readonly requests = new Map<number, { model: string; outcome: string; retryMs?: number }>();
  readonly grants: number[] = [];
  #next = 1;

  constructor(rules: SchedulerRules) {
    this.rules = rules;
    this.scheduler = new Scheduler(rules);
  }

  request(model: string, options: { quiet?: boolean } = {}): number {
    const id = this.#next++;
    this.requests.set(id, { model, outcome: "waiting" });
    this.send({ type: "request", id, model, absent: this.absent.has(model), ...options });
    return id;
  }

  leave(id: number): void {
    const request = this.requests.get(id);
    if (request !== undefined) request.outcome = request.outcome === "running" ? "over" : "left";
    this.send({ type: "leave", id });
  }

  started(model: string): void {
    this.engines.set(model, "ready");
    this.send({ type: "started", model });
  }

  fetched(model: string): void {
    this.absent.delete(model);
    this.fetching.delete(model);
    this.send({ type: "fetched", model });
  }

  fetchFailed(model: string): void {
    this.fetching.delete(model);
    this.send({ type: "fetch-failed", model, error: `${model} can't be fetched` });
  }

  stopped(model: string): void {
    this.engines.delete(model);
    this.send({ type: "stopped", model });
  }

  failed(model: string, type: "start-failed" | "no-room" | "died" = "start-failed"): void {
    this.engines.delete(model);
    this.send({ type, model, error: `${model} is broken` });
  }

  tick(ms: number): void {
    this.now += ms;
    this.send({ type: "tick" });
  }

  outcome(id: number): string | undefined {
    return this.requests.get(id)?.outcome;
  }

  running(model: string): number[] {
    return [...this.requests]
      .filter(([, r]) => r.model === model && r.outcome === "running")
      .map(([id]) => id);
  }

  waiting(): number[] {
    return [...this.requests].filter(([, r]) => r.outcome === "waiting").map(([id]) => id);
  }

  send(event: SchedulerEvent): void {
    if (event.type === "rules") this.rules = event.rules;
    for (const effect of this.scheduler.handle(event, this.now)) this.#apply(effect);
  }

  #apply(effect: Effect): void {
    if (effect.type === "fetch") this.#fetch(effect.model);
    else if (effect.type === "start") this.#start(effect.model);
    else if (effect.type === "stop") this.#stop(effect.model);
    else this.#answer(effect);
  }

  #fetch(model: string): void {
    if (this.engines.has(model))
      throw new Error(`${model} is fetched while it is ${this.engines.get(model)}`);
    this.fetching.add(model);
  }

  #start(model: string): void {
    if (this.absent.has(model) && this.fetching.has(model))
      throw new Error(`${model} is started before its file is there`);
    if (this.engines.has(model))
      throw new Error(`${model} is started while it is ${this.engines.get(model)}`);
    for (const other of this.engines.keys()) {
      if (conflicts(this.rules, model, other)) throw new Error(`${model} is started beside ${other}`);
    }
    this.engines.set(model, "starting");
  }

  #stop(model: string): void {
    const state = this.engines.get(model);
    if (state !== "starting" && state !== "ready")
      throw new Error(`${model} is stopped while it is ${state}`);
    if (this.running(model).length > 0) throw new Error(`${model} is stopped while it answers`);
    this.engines.set(model, "stopping");
  }

  #answer(effect: Extract<Effect, { type: "grant" | "refuse" }>): void {
    const request = this.requests.get(effect.id);
    if (request === undefined) return;
    if (request.outcome !== "waiting")
      throw new Error(`request ${effect.id} is answered while ${request.outcome}`);
    if (effect.type === "refuse") {
      request.outcome = effect.refusal.kind;
      if ("retryMs" in effect.refusal) request.retryMs = effect.refusal.retryMs;
      return;
    }
    const state = this.engines.get(request.model);
    if (state !== "ready")
      throw new Error(`request ${effect.id} goes to ${request.model}, which is ${state}`);
    const most = this.rules.models.get(request.model)?.maxRunning ?? 0;
    if (most > 0 && this.running(request.model).length >= most)
      throw new Error(`${request.model} gets too many`);
    const older = this.waiting().find(
      (id) => id < effect.id && this.requests.get(id)?.model === request.model,
    );
    if (older !== undefined) throw new Error(`request ${effect.id} overtakes ${older}`);
    request.outcome = "running";
    this.grants.push(effect.id);
  }
}

/**
 * Which models run, and which request goes when: a state machine without clock, sockets or processes. Events go in, effects
 * come out. Requests are served in the order in which they came; a model that others wait for takes no new requests once its
 * residency is over, finishes the running ones and makes room. So nobody starves, and nothing running is ever cut off.
 */
import { IdTable } from "./id-table.ts";
import { conflicts, type SchedulerRules } from "./rules.ts";

export type SchedulerEvent =
  /** A client's request. `quiet`: does not count as use of the model; `absent`: its file has to be fetched before it can be started. */
  | { type: "request"; id: number; model: string; quiet?: boolean; absent?: boolean }
  /** The model is to be loaded; granted when it is, without counting as running. */
  | { type: "load"; id: number; model: string; absent?: boolean }
  /** A granted request is over, or a waiting client has left. */
  | { type: "leave"; id: number }
  /** The model is to be stopped once its running requests are done. */
  | { type: "unload"; model: string }
  /** Its file is there: it can be started now. */
  | { type: "fetched"; model: string }
  | { type: "fetch-failed"; model: string; error: string }
  | { type: "started"; model: string }
  | { type: "start-failed"; model: string; error: string }
  /** There is no memory for it beside what runs now. */
  | { type: "no-room"; model: string; error: string }
  | { type: "stopped"; model: string }
  /** Its engine ended and is not started again by itself. */
  | { type: "died"; model: string; error: string }
  /** `changed`: models whose engine must be started anew. */
  | { type: "rules"; rules: SchedulerRules; changed: readonly string[] }
  | { type: "tick" };

export type Refusal =
  | { kind: "queue-full"; retryMs: number; waiting: number }
  | { kind: "queue-timeout"; retryMs: number; waitedMs: number; phase: Phase | "being fetched" }
  | { kind: "start-failed"; retryMs: number; error: string }
  | { kind: "removed" };

export type Effect =
  | { type: "grant"; id: number }
  | { type: "refuse"; id: number; refusal: Refusal }
  | { type: "fetch"; model: string }
  | { type: "start"; model: string }
  | { type: "stop"; model: string };

export type Phase = "stopped" | "starting" | "ready" | "stopping";

interface Waiter {
  id: number;
  model: string;
  since: number;
  /** load: granted without counting as running; keep: the scheduler's own wish, granted to nobody. */
  kind: "request" | "load" | "keep";
  quiet: boolean;
}

interface ModelState {
  name: string;
  phase: Phase;
  running: number;
  waiting: number;
  readyAt: number;
  usedAt: number;
  /** Stopped, and its file is on its way: whoever waits for it takes nobody's room until then. */
  fetching: boolean;
  /** Takes no new requests, and stops when the running ones are done. */
  closing: boolean;
  /** Start it again once it has stopped. */
  again: boolean;
  /** The config does not name it any more. */
  removed: boolean;
  /** It did not fit beside what ran when it was started last. */
  crowded: boolean;
  /** The model that has to go before it is started again; undefined: still to be chosen, or none. */
  victim?: ModelState;
  /** A victim is wanted. */
  evicting: boolean;
  failures: number;
  /** No start before that time. */
  blockedUntil: number;
  error: string;
  starts: number;
}

/** What is told of a model to whoever asks. */
export interface ModelView {
  phase: Phase;
  fetching: boolean;
  running: number;
  /** Requests alone: not the server's own wish to have it loaded. */
  waiting: number;
  starts: number;
  /** No start before that time (of the caller's clock); 0: at any time. */
  blockedUntil: number;
  /** Why its last start failed. */
  error?: string;
}

export class Scheduler {
  #rules: SchedulerRules;
  readonly #models = new Map<string, ModelState>();
  #queue: Waiter[] = [];
  readonly #granted = new IdTable<{ model: ModelState; counts: boolean; quiet: boolean }>();
  #effects: Effect[] = [];
  /** Time at which a tick is due; Infinity: never. */
  wakeAt = Number.POSITIVE_INFINITY;

  constructor(rules: SchedulerRules) {
    this.#rules = rules;
    for (const name of rules.models.keys()) this.#models.set(name, newModel(name));
  }

  view(model: string): ModelView | undefined {
    const state = this.#models.get(model);
    if (state === undefined) return undefined;
    const { phase, fetching, running, starts, blockedUntil, error } = state;
    const waiting = this.#queue.reduce(
      (n, waiter) => n + (waiter.kind === "request" && waiter.model === model ? 1 : 0),
      0,
    );
    return {
      phase,
      fetching,
      running,
      waiting,
      starts,
      blockedUntil,
      error: error === "" ? undefined : error,
    };
  }

  /** Requests that wait, of all models. */
  get waiting(): number {
    return this.#queue.reduce((n, { kind }) => n + (kind === "request" ? 1 : 0), 0);
  }

  /** How many requests stand before this one; undefined: it does not wait. */
  positionOf(id: number): number | undefined {
    const at = this.#queue.findIndex((waiter) => waiter.id === id);
    return at < 0 ? undefined : at;
  }

  /** @param now ms of any steady clock */
  handle(event: SchedulerEvent, now: number): readonly Effect[] {
    this.#effects = [];
    if (this.#take(event, now)) this.#schedule(now);
    return this.#effects;
  }

  /** Takes in what happened; false: nothing more can follow from it. */
  #take(event: SchedulerEvent, now: number): boolean {
    switch (event.type) {
      case "request":
      case "load":
        return this.#ask(event, now);
      case "leave":
        return this.#leave(event.id, now);
      case "tick":
        return true;
      case "rules":
        this.#change(event.rules, event.changed);
        return true;
      default: {
        const model = this.#models.get(event.model);
        if (model !== undefined) this.#progress(model, event, now);
        return model !== undefined;
      }
    }
  }

  #ask(
    event: { type: "request" | "load"; id: number; model: string; quiet?: boolean; absent?: boolean },
    now: number,
  ): boolean {
    const { id, type } = event;
    const model = this.#models.get(event.model);
    if (model === undefined || model.removed) {
      this.#refuse(id, { kind: "removed" });
      return false;
    }
    const waiter: Waiter = { id, model: model.name, since: now, kind: type, quiet: event.quiet ?? false };
    // the usual case: nobody waits, so nobody can be overtaken
    if (this.#queue.length === 0 && this.#open(model)) {
      this.#grant(waiter, model);
      return false;
    }
    // by hand it may be tried again at once
    if (type === "load" && model.phase === "stopped") model.blockedUntil = 0;
    if (type === "request" && model.phase === "stopped" && model.blockedUntil > now) {
      const retryMs = model.blockedUntil - now;
      this.#refuse(id, { kind: "start-failed", retryMs, error: model.error });
      return false;
    }
    if (type === "request" && this.waiting >= this.#rules.queueMax) {
      this.#refuse(id, { kind: "queue-full", retryMs: 1000, waiting: this.waiting });
      return false;
    }
    this.#queue.push(waiter);
    model.waiting++;
    if (event.absent && model.phase === "stopped" && !model.fetching) {
      model.fetching = true;
      this.#effects.push({ type: "fetch", model: model.name });
    }
    return true;
  }

  #leave(id: number, now: number): boolean {
    const granted = this.#granted.get(id);
    if (granted === undefined) {
      const at = this.#queue.findIndex((waiter) => waiter.id === id);
      if (at < 0) return false;
      const [waiter] = this.#queue.splice(at, 1);
      const model = this.#models.get(waiter.model);
      if (model !== undefined) model.waiting--;
      return true;
    }
    this.#granted.delete(id);
    const { model, quiet } = granted;
    if (granted.counts) model.running--;
    if (!quiet) model.usedAt = now;
    const ttl = this.#rules.models.get(model.name)?.ttlMs ?? 0;
    if (ttl > 0) this.#wake(model.usedAt + ttl);
    return this.#queue.length > 0 || model.closing;
  }

  #progress(
    model: ModelState,
    event:
      | { type: "unload" | "fetched" | "started" | "stopped" }
      | { type: "fetch-failed" | "start-failed" | "no-room" | "died"; error: string },
    now: number,
  ): void {
    switch (event.type) {
      case "unload":
        if (model.phase === "starting" || model.phase === "ready") model.closing = true;
        model.again = false;
        this.#drop(model, (waiter) => waiter.kind === "keep");
        return;
      case "fetched":
        model.fetching = false;
        return;
      case "fetch-failed":
        if (model.fetching) this.#failed(model, event.error, now);
        return;
      case "started":
        if (model.phase !== "starting") return;
        Object.assign(model, { phase: "ready", readyAt: now, usedAt: now, crowded: false });
        Object.assign(model, { failures: 0, blockedUntil: 0, error: "" });
        return;
      case "stopped":
        if (model.phase === "stopping") this.#stopped(model);
        return;
      case "no-room":
        if (model.phase !== "starting") return;
        if (!this.#others(model).some((other) => this.#evictable(other))) {
          this.#failed(model, event.error, now);
          return;
        }
        model.phase = "stopped";
        Object.assign(model, { crowded: true, evicting: true, victim: undefined });
        return;
      case "start-failed":
        if (model.phase === "starting") this.#failed(model, event.error, now);
        return;
      case "died":
        if (model.phase === "ready") this.#failed(model, event.error, now);
        return;
    }
  }

  #stopped(model: ModelState): void {
    model.phase = "stopped";
    model.closing = false;
    if (model.removed) {
      this.#models.delete(model.name);
    } else if (model.again) {
      model.again = false;
      this.#keep(model);
    }
  }

  /** The scheduler's own wish that the model runs. */
  #keep(model: ModelState): void {
    if (this.#queue.some(({ kind, model: name }) => kind === "keep" && name === model.name)) return;
    this.#queue.push({ id: -1, model: model.name, since: 0, kind: "keep", quiet: true });
    model.waiting++;
  }

  #failed(model: ModelState, error: string, now: number): void {
    const { backoffFirstMs, backoffMaxMs } = this.#rules;
    model.phase = "stopped";
    model.fetching = false;
    model.closing = false;
    model.crowded = false;
    model.error = error;
    const retryMs = Math.min(backoffMaxMs, backoffFirstMs * 2 ** Math.min(30, model.failures));
    model.failures++;
    model.blockedUntil = now + retryMs;
    this.#drop(model, (waiter) => {
      if (waiter.kind !== "keep") this.#refuse(waiter.id, { kind: "start-failed", retryMs, error });
      return true;
    });
    if (model.removed) this.#models.delete(model.name);
    else if (model.again || this.#rules.models.get(model.name)?.pinned) this.#keep(model);
    model.again = false;
  }

  #change(rules: SchedulerRules, changed: readonly string[]): void {
    this.#rules = rules;
    for (const name of rules.models.keys()) {
      const known = this.#models.get(name);
      if (known === undefined) this.#models.set(name, newModel(name));
      else known.removed = false;
    }
    for (const model of [...this.#models.values()]) {
      if (!rules.models.has(model.name)) this.#remove(model);
      else if (changed.includes(model.name)) this.#renew(model);
    }
  }

  #remove(model: ModelState): void {
    model.removed = true;
    model.again = false;
    this.#drop(model, (waiter) => {
      if (waiter.kind !== "keep") this.#refuse(waiter.id, { kind: "removed" });
      return true;
    });
    if (model.phase === "stopped") this.#models.delete(model.name);
    else model.closing = true;
  }

  #renew(model: ModelState): void {
    Object.assign(model, { failures: 0, blockedUntil: 0, error: "", crowded: false });
    if (model.phase === "stopped") return;
    model.again = true;
    if (model.phase !== "stopping") model.closing = true;
  }

  /** Takes those of the model's waiters out of the queue for which `test` is true. */
  #drop(model: ModelState, test: (waiter: Waiter) => boolean): void {
    this.#queue = this.#queue.filter((waiter) => {
      if (waiter.model !== model.name || !test(waiter)) return true;
      model.waiting--;
      return false;
    });
  }

  /** Ready to take one more request. */
  #open(model: ModelState): boolean {
    if (model.phase !== "ready" || model.closing) return false;
    const most = this.#rules.models.get(model.name)?.maxRunning ?? 0;
    return most === 0 || model.running < most;
  }

  #grant(waiter: Waiter, model: ModelState): void {
    if (waiter.kind === "keep") return;
    if (waiter.kind === "request") {
      model.running++;
      this.#granted.set(waiter.id, { model, counts: true, quiet: waiter.quiet });
    }
    this.#effects.push({ type: "grant", id: waiter.id });
  }

  #refuse(id: number, refusal: Refusal): void {
    this.#effects.push({ type: "refuse", id, refusal });
  }

  #wake(at: number): void {
    this.wakeAt = Math.min(this.wakeAt, at);
  }

  #others(model: ModelState): ModelState[] {
    return [...this.#models.values()].filter((other) => other !== model);
  }

  #evictable(model: ModelState): boolean {
    return model.phase !== "stopped" && !(this.#rules.models.get(model.name)?.pinned ?? false);
  }

  #stop(model: ModelState): void {
    model.phase = "stopping";
    this.#effects.push({ type: "stop", model: model.name });
  }

  #start(model: ModelState): void {
    model.phase = "starting";
    model.starts++;
    this.#effects.push({ type: "start", model: model.name });
  }

  #schedule(now: number): void {
    this.wakeAt = Number.POSITIVE_INFINITY;
    this.#expire(now);
    for (const model of this.#models.values()) {
      const idle = model.phase === "ready" && model.running === 0;
      if (model.closing && (idle || model.phase === "starting")) this.#stop(model);
    }
    this.#serve(now);
    this.#unloadIdle(now);
  }

  #expire(now: number): void {
    const { queueMs } = this.#rules;
    this.#queue = this.#queue.filter((waiter) => {
      if (waiter.kind !== "request") return true;
      const waitedMs = now - waiter.since;
      if (waitedMs < queueMs) {
        this.#wake(waiter.since + queueMs);
        return true;
      }
      const model = this.#models.get(waiter.model);
      if (model !== undefined) model.waiting--;
      this.#refuse(waiter.id, {
        kind: "queue-timeout",
        retryMs: 5000,
        waitedMs,
        phase: model?.fetching ? "being fetched" : (model?.phase ?? "stopped"),
      });
      return false;
    });
  }

  /** One walk along the queue: grants what can go, and makes room for what can't, the oldest first. */
  #serve(now: number): void {
    /** Take no more requests: an older one of another model waits for their room. */
    const vacating = new Set<ModelState>();
    /** Not ready, and wanted by the requests walked past so far. */
    const wanted: ModelState[] = [];
    const left: Waiter[] = [];
    for (const waiter of this.#queue) {
      const model = this.#models.get(waiter.model);
      if (model === undefined) continue;
      if (!vacating.has(model) && this.#open(model)) {
        this.#grant(waiter, model);
        model.waiting--;
        continue;
      }
      left.push(waiter);
      if (wanted.includes(model) || model.fetching) continue;
      const full = model.phase === "ready" && !model.closing && !vacating.has(model);
      if (full) continue;
      const behind = wanted.some((older) => this.#excludes(model, older) || this.#excludes(older, model));
      wanted.push(model);
      if (!behind && model.phase !== "starting" && model.phase !== "ready")
        this.#makeRoom(model, vacating, now);
    }
    this.#queue = left;
  }

  #excludes(wanted: ModelState, resident: ModelState): boolean {
    if (conflicts(this.#rules, wanted.name, resident.name)) return true;
    return wanted.crowded && wanted !== resident && !(this.#rules.models.get(resident.name)?.pinned ?? false);
  }

  /** Starts the model if nothing stands in its way, and otherwise has what stands there go. */
  #makeRoom(model: ModelState, vacating: Set<ModelState>, now: number): void {
    let free = model.phase === "stopped";
    for (const other of this.#inTheWay(model)) {
      free = false;
      if (other.phase === "starting" && other.waiting === 0) this.#stop(other);
      if (other.phase !== "ready") continue;
      if (other.running === 0) this.#stop(other);
      else if (now >= other.readyAt + this.#rules.residencyMs) vacating.add(other);
      else this.#wake(other.readyAt + this.#rules.residencyMs);
    }
    if (!free) return;
    if (model.blockedUntil <= now) this.#start(model);
    else this.#wake(model.blockedUntil);
  }

  #inTheWay(model: ModelState): ModelState[] {
    const resident = this.#others(model).filter(({ phase }) => phase !== "stopped");
    const blocking = resident.filter((other) => conflicts(this.#rules, model.name, other.name));
    if (blocking.length > 0 || !model.evicting) return blocking;
    // one at a time, the longest unused first: perhaps that makes room enough
    const spare = resident.filter((other) => this.#evictable(other));
    model.victim ??= spare.sort(
      (a, b) => Number(a.running > 0) - Number(b.running > 0) || a.usedAt - b.usedAt,
    )[0];
    if (model.victim !== undefined && model.victim.phase !== "stopped") return [model.victim];
    Object.assign(model, { evicting: false, victim: undefined });
    return [];
  }

  #unloadIdle(now: number): void {
    for (const model of this.#models.values()) {
      const ttl = this.#rules.models.get(model.name)?.ttlMs ?? 0;
      if (ttl <= 0 || model.phase !== "ready" || model.running > 0 || model.waiting > 0) continue;
      if (now >= model.usedAt + ttl) this.#stop(model);
      else this.#wake(model.usedAt + ttl);
    }
  }
}

function newModel(name: string): ModelState {
  return {
    name,
    phase: "stopped",
    running: 0,
    waiting: 0,
    readyAt: 0,
    usedAt: 0,
    fetching: false,
    closing: false,
    again: false,
    removed: false,
    crowded: false,
    evicting: false,
    failures: 0,
    blockedUntil: 0,
    error: "",
    starts: 0,
  };
}

/** Wires the parts together: engine and model files, engines, drafting, proxy. */
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import express, { type Router } from "express";
import { type LoadedConfig, loadConfig } from "./config.ts";
import type { WeightedCorpus } from "./corpus/floor-messages.ts";
import { dashboardRoutes } from "./dashboard/routes.ts";
import { ensureEngine } from "./engine/build.ts";
import { createEngine } from "./engine/create.ts";
import type { Engine } from "./engine/engine.ts";
import { ensureModel, isPresent, needsPip, resolvePath } from "./engine/models.ts";
import { notingProgress, type WorkOptions } from "./engine/progress.ts";
import { buildTools, downloadTools, requireTools } from "./engine/tools.ts";
import { AdedError, messageOf } from "./errors.ts";
import { homePath, projectPath } from "./home.ts";
import { DraftingHost } from "./link/host.ts";
import { type Log, recentLines } from "./log.ts";
import { createMetrics } from "./metrics.ts";
import type { ModelConfig } from "./options.ts";
import { type AdedProxy, createProxy, type ProxyUpdate } from "./proxy/app.ts";
import { modelRoutes } from "./proxy/model-routes.ts";
import type { ProxyModel } from "./proxy/models.ts";
import { Fleet, preloaded } from "./swap/fleet.ts";
import { estimateNeed, MemoryGuard, offloads, readShape } from "./swap/memory.ts";
import type { FetchContext, LaunchContext, Launched } from "./swap/model-engine.ts";
import { ConfigWatcher } from "./swap/reload.ts";

export interface ServerOptions extends WorkOptions {
  log: Log;
  /** File that the steps of the model are recorded into, for replays; several models: FILE.NAME each. @default none */
  record?: string;
}

export interface CloseOptions {
  /** How long running requests may go on, ms. */
  drainMs: number;
  /** From SIGTERM to SIGKILL for the engines, ms. */
  graceMs: number;
}

export interface RunningServer {
  /** Where the proxy listens. */
  url: string;
  engines: readonly Engine[];
  /** Resolves when every preloaded model is ready; rejects when one can't be started. */
  ready: Promise<void>;
  /** Takes over another config; what changed restarts once its requests are done. @throws AdedError, with all as it was */
  reload(config: LoadedConfig): Promise<Reloaded>;
  close(options: CloseOptions): Promise<void>;
}

export interface Reloaded {
  added: string[];
  removed: string[];
  /** Models whose engine is started anew. */
  restarted: string[];
  /** Options that changed and take effect only at the next start. */
  fixed: string[];
}

/** Longest that an engine which answers is held back because its draft link is not up, ms. */
const LINK_WAIT_MS = 15_000;

/** Version of this program, from package.json. */
export function programVersion(): string {
  return (JSON.parse(readFileSync(projectPath("package.json"), "utf8")) as { version: string }).version;
}

/**
 * Builds and fetches what is missing, then listens and starts the models that are preloaded. Resolves when the proxy
 * listens: until `ready`, requests wait in the queue.
 * @throws AdedError; the signal's reason when aborted before it listens
 */
export async function startServer(config: LoadedConfig, options: ServerOptions): Promise<RunningServer> {
  const { log, signal } = options;
  const { host, port } = config.listen;
  // an engine takes minutes to build: a port that is taken is better known before
  await checkPort(host, port);
  const launcher = new Launcher(config, options, () => proxy.running > 0);
  await launcher.prepare(config);
  signal?.throwIfAborted();

  const metrics = createMetrics({ process: true });
  const fleet = new Fleet(config, {
    launch: (name, settings, context) => launcher.launch(name, settings, context),
    fetch: async (settings, context) => void (await launcher.fetch(settings, context)),
    absent: (settings) => launcher.absent(settings),
    log,
    events: { changed: metrics.swapped, refused: metrics.refused },
  });
  const proxy: AdedProxy = createProxy({
    ...proxySettings(config),
    models: proxyModels(fleet, config),
    version: programVersion(),
    log,
    draftingStatus: (name) => fleet.drafting(name),
    linkUp: (name) => fleet.linkUp(name),
    keepAliveMs: config.limits.keep_alive_seconds * 1000,
    metrics,
    gate: fleet,
    routes: ownRoutes(fleet, launcher),
    liveAb: config.ab,
  });
  const { url } = await proxy.listen({ host, port });
  const ready = Promise.all(preloaded(config).map((name) => fleet.load(name))).then(() => undefined);
  // whoever wants to know of a failure awaits `ready`; nobody has to
  ready.catch(() => {});
  const loaded = (name: string): boolean => (fleet.status(name)?.phase ?? "stopped") !== "stopped";
  let current = config;
  return {
    url,
    get engines() {
      return fleet.engines;
    },
    ready,
    async reload(next) {
      await launcher.prepare(next, Object.keys(next.models).filter(loaded));
      launcher.config = next;
      const changes = fleet.apply(next);
      proxy.update({ ...proxySettings(next), models: proxyModels(fleet, next) });
      const fixed = fixedChanges(current, next);
      current = next;
      return { ...changes, fixed };
    },
    async close({ drainMs, graceMs }) {
      await proxy.close(drainMs);
      await fleet.close(graceMs);
    },
  };
}

/** The dashboard, and models by hand. */
function ownRoutes(fleet: Fleet, launcher: Launcher): Router {
  const routes = express.Router({ caseSensitive: true });
  routes.use(modelRoutes(fleet));
  routes.use(
    dashboardRoutes({
      watch: (name, listener) => launcher.draftingOf(name)?.watch(listener),
      address: (name) => fleet.engines.find(({ model }) => model === name)?.address,
      lines: recentLines,
    }),
  );
  return routes;
}

/** The part of the config that the proxy can take over while it runs. */
function proxySettings(config: LoadedConfig): Omit<ProxyUpdate, "models"> {
  const { limits } = config;
  return {
    apiKeys: config.api_keys,
    allowedHosts: config.allowed_hosts,
    allowedOrigins: config.allowed_origins,
    maxBodyBytes: limits.body_bytes,
    engineTimeoutMs: limits.engine_timeout_seconds * 1000,
    uploadIdleMs: limits.upload_idle_seconds * 1000,
    readIdleMs: limits.read_idle_seconds * 1000,
    logRequests: config.log_requests,
  };
}

function proxyModels(fleet: Fleet, { models }: LoadedConfig): ProxyModel[] {
  return fleet.engines.map((engine) => {
    const { aliases, hidden } = models[engine.model];
    return { engine, aliases, hidden };
  });
}

/** Options that differ and take effect only at the next start. */
function fixedChanges(before: LoadedConfig, after: LoadedConfig): string[] {
  const fixed: string[] = [];
  if (JSON.stringify(before.listen) !== JSON.stringify(after.listen)) fixed.push("listen");
  if (JSON.stringify(before.ab) !== JSON.stringify(after.ab)) fixed.push("ab");
  if (before.limits.keep_alive_seconds !== after.limits.keep_alive_seconds) {
    fixed.push("limits.keep_alive_seconds");
  }
  if (before.swap.memory_reserve !== after.swap.memory_reserve) fixed.push("swap.memory_reserve");
  if (before.swap.start_seconds !== after.swap.start_seconds)
    fixed.push("swap.start_seconds (of models that were there)");
  return fixed;
}

export interface ServeOptions extends ServerOptions {
  /** Ends serving. */
  signal: AbortSignal;
  /** Asked when serving ends. */
  closing: () => CloseOptions;
  /** Called once the proxy listens, and again when all engines are ready. */
  onListening?: (server: RunningServer, ready: boolean) => void;
}

/** Serves until the signal is aborted. @throws AdedError when an engine can't be started; the signal's reason at the end */
export async function serve(config: LoadedConfig, options: ServeOptions): Promise<never> {
  const { signal, closing, onListening } = options;
  const server = await startServer(config, options);
  const { file } = config;
  const watcher =
    file === undefined
      ? undefined
      : new ConfigWatcher({ file, log: options.log, reload: () => server.reload(loadConfig(file)) });
  try {
    onListening?.(server, false);
    watcher?.start();
    const aborted = abortion(signal);
    await Promise.race([server.ready, aborted]);
    onListening?.(server, true);
    return await aborted;
  } finally {
    await watcher?.stop();
    await server.close(closing());
  }
}

/** Makes a model's engine, with its file fetched and its drafter at hand. */
class Launcher {
  config: LoadedConfig;
  readonly #options: ServerOptions;
  readonly #busy: () => boolean;
  readonly #guard: MemoryGuard;
  readonly #drafted = new Map<string, Drafted>();
  /** Files of the hub's sources, as far as they were fetched. */
  readonly #files = new Map<string, string>();
  #serverPath?: string;

  /** @param busy whether somebody is being answered */
  constructor(config: LoadedConfig, options: ServerOptions, busy: () => boolean) {
    this.config = config;
    this.#options = options;
    this.#busy = busy;
    this.#guard = new MemoryGuard({ reserve: config.swap.memory_reserve });
  }

  /**
   * Builds the engine and fetches the files of preloaded models, as far as the config needs them.
   * @param loaded models that run now: their new files are fetched before they are started anew
   */
  async prepare(config: LoadedConfig, loaded: readonly string[] = []): Promise<void> {
    const entries = Object.entries(config.models);
    const base = baseOf(config);
    const sources = entries.flatMap(([, { source }]) => source ?? []);
    if (sources.length === 0) return;
    // all that is missing is named at once, not first the compiler and minutes later Python
    const fetching = sources.some((source) => needsPip(source, base));
    await requireTools([...buildTools, ...(fetching ? downloadTools : [])], this.#options.signal);
    this.#serverPath ??= (await ensureEngine(this.#options)).serverPath;
    for (const name of new Set([...preloaded(config), ...loaded])) {
      const { source } = config.models[name];
      if (source !== undefined) await ensureModel(source, { ...this.#options, base });
    }
  }

  /** What drafts for the model now. */
  draftingOf(name: string): DraftingHost | undefined {
    return this.#drafted.get(name)?.drafting;
  }

  /** The file of a hub's source that was fetched before and is still there: the hub need not be asked again. */
  #fetched(source: string): string | undefined {
    const file = this.#files.get(source);
    return file !== undefined && existsSync(file) ? file : undefined;
  }

  /** Is there a file to be fetched before the model can be started? */
  absent({ source }: ModelConfig): boolean {
    if (source === undefined) return false;
    return this.#fetched(source) === undefined && !isPresent(source, baseOf(this.config));
  }

  /** Path of the model's file, fetched first if need be; undefined: it has none. @throws AdedError */
  async fetch({ source }: ModelConfig, { signal, note }: FetchContext): Promise<string | undefined> {
    if (source === undefined) return undefined;
    const fetched = this.#fetched(source);
    if (fetched !== undefined) return fetched;
    note("fetching the model file");
    const progress = notingProgress(note);
    const file = await ensureModel(source, { base: baseOf(this.config), signal, progress });
    if (source.startsWith("hf:")) this.#files.set(source, file);
    return file;
  }

  async launch(name: string, settings: ModelConfig, context: LaunchContext): Promise<Launched> {
    const { log } = this.#options;
    const base = baseOf(this.config);
    const modelPath = await this.fetch(settings, context);
    if (modelPath !== undefined) await this.#claim(name, settings, modelPath);
    const engine = createEngine({
      model: name,
      settings,
      serverPath: this.#serverPath,
      modelPath,
      log,
      output: context.output,
    });
    const busy = this.#busy;
    const drafted: Drafted = { name, settings, engine, base, busy, record: this.#recordOf(name) };
    engine.on("state", () => this.#guard.settle(name));
    waitForDrafting(drafted, log);
    this.#drafted.set(name, drafted);
    return { engine, drafting: () => drafted.drafting };
  }

  #recordOf(name: string): string | undefined {
    const { record } = this.#options;
    return record !== undefined && Object.keys(this.config.models).length > 1
      ? `${record}.${encodeURIComponent(name)}`
      : record;
  }

  /** @throws AdedError ADED_MEMORY */
  async #claim(name: string, { args, memory }: ModelConfig, modelPath: string): Promise<void> {
    if (!this.config.swap.memory_guard) return;
    if (memory !== undefined) return this.#guard.claim(name, memory);
    if (offloads(args)) return;
    const read = await readShape(modelPath);
    if (read !== undefined) return this.#guard.claim(name, estimateNeed(read.shape, read.weights, args));
    this.#options.log.warn(
      { model: name, file: modelPath },
      "what this model needs can't be read from its file: loaded without the memory guard (the option memory tells it)",
    );
  }
}

function baseOf({ file }: LoadedConfig): string | undefined {
  return file === undefined ? undefined : path.dirname(file);
}

interface Drafted {
  name: string;
  settings: ModelConfig;
  engine: Engine;
  /** Where relative paths start. */
  base?: string;
  /** Whether somebody is being answered. */
  busy: () => boolean;
  drafting?: DraftingHost;
  /** File that its steps are recorded into. */
  record?: string;
}

/** The engine counts as ready once its draft link is up: no request is told that it runs plain because it came early. */
function waitForDrafting(model: Drafted, log: Log): void {
  const { engine } = model;
  engine.beforeReady = async (signal) => {
    startDrafting(model, log);
    if (model.drafting === undefined || (await model.drafting.linked(LINK_WAIT_MS, signal)) || signal.aborted)
      return;
    log.warn(
      { model: model.name, waited_ms: LINK_WAIT_MS },
      "the draft link is not up, serving without drafts",
    );
  };
}

function startDrafting(model: Drafted, log: Log): void {
  const { name, engine, settings, busy } = model;
  const socketPath = engine.draftSocket;
  if (model.drafting !== undefined || socketPath === undefined || !settings.drafts.enabled) return;
  const {
    top_k: topK,
    max_nodes: maxNodes,
    fixed_nodes,
    matrix_memory: matrixBytes,
    share_scopes: shareScopes,
    snapshot_seconds: everySeconds,
    search,
  } = settings.drafts;
  model.drafting = new DraftingHost({
    socketPath,
    topK,
    corpora: { corpora: corporaOf(model), topK: settings.top_k, busy },
    drafter: {
      maxNodes,
      fixedNodes: fixed_nodes === 0 ? undefined : fixed_nodes,
      matrixBytes,
      search,
      shareScopes,
    },
    snapshots: everySeconds === 0 ? undefined : { base: learntPath(name), everySeconds },
    record: model.record,
    log: log.child({ model: name }),
  });
  model.drafting.start();
}

/** Where what a model's drafter learnt is kept, without ending. Names may hold anything, file names may not. */
function learntPath(name: string): string {
  return homePath("learnt", encodeURIComponent(name).replaceAll(".", "%2E"));
}

/** The corpora of a model, with full paths. */
function corporaOf({ settings, base }: Drafted): WeightedCorpus[] {
  return settings.corpora.map(({ file, weight }) => ({ file: resolvePath(file, base), weight }));
}

/** @throws AdedError ADED_PORT_TAKEN */
async function checkPort(host: string, port: number): Promise<void> {
  if (port === 0) return;
  const probe = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      probe.once("error", reject);
      probe.listen({ host, port, exclusive: true }, resolve);
    });
  } catch (error) {
    const taken = (error as NodeJS.ErrnoException).code === "EADDRINUSE";
    throw new AdedError(
      taken ? "ADED_PORT_TAKEN" : "ADED_CONFIG",
      taken ? `port ${port} of ${host} is in use` : `can't listen on ${host}:${port}: ${messageOf(error)}`,
      { hint: "stop what listens there, or choose another port: ADED_PORT=8081 npm start", cause: error },
    );
  } finally {
    await new Promise((resolve) => probe.close(resolve));
  }
}

export interface TemporaryServerOptions<T> extends ServerOptions {
  /** Called with the address while the server runs and all engines are ready. */
  use: (url: string) => Promise<T>;
}

/** Runs a server of this config on any free port for as long as `use` takes. */
export async function withServer<T>(config: LoadedConfig, options: TemporaryServerOptions<T>): Promise<T> {
  const { signal, use } = options;
  // a measurement starts cold and leaves nothing behind
  const models = Object.fromEntries(
    Object.entries(config.models).map(([name, model]) => [
      name,
      { ...model, drafts: { ...model.drafts, snapshot_seconds: 0 } },
    ]),
  );
  const listen = { host: "127.0.0.1", port: 0 };
  const server = await startServer({ ...config, models, listen }, options);
  try {
    await Promise.race([server.ready, abortion(signal)]);
    return await use(server.url);
  } finally {
    await server.close({ drainMs: 0, graceMs: 1000 });
  }
}

/** Rejects with the signal's reason when it is aborted. */
function abortion(signal?: AbortSignal): Promise<never> {
  const aborted = new Promise<never>((_resolve, reject) => {
    const stop = (): void => reject(signal?.reason);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
  aborted.catch(() => {});
  return aborted;
}

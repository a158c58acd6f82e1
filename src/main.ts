/** Wires the parts together: engine and model files, engines, drafting, proxy. */
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import type { LoadedConfig } from "./config.ts";
import type { WeightedCorpus } from "./corpus/floor-messages.ts";
import { dashboardRoutes } from "./dashboard/routes.ts";
import { ensureEngine } from "./engine/build.ts";
import { createEngine } from "./engine/create.ts";
import type { Engine } from "./engine/engine.ts";
import { ensureModel, needsDownload, resolvePath } from "./engine/models.ts";
import type { WorkOptions } from "./engine/progress.ts";
import { buildTools, downloadTools, requireTools } from "./engine/tools.ts";
import { AdedError, messageOf } from "./errors.ts";
import { projectPath } from "./home.ts";
import { DraftingHost } from "./link/host.ts";
import { type Log, recentLines } from "./log.ts";
import { createMetrics } from "./metrics.ts";
import type { ModelConfig } from "./options.ts";
import { createProxy } from "./proxy/app.ts";

export interface ServerOptions extends WorkOptions {
  log: Log;
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
  /** Resolves when every engine is ready; rejects when one can't be started. */
  ready: Promise<void>;
  close(options: CloseOptions): Promise<void>;
}

/** Longest that an engine which answers is held back because its draft link is not up, ms. */
const LINK_WAIT_MS = 15_000;

interface Served {
  name: string;
  settings: ModelConfig;
  engine: Engine;
  /** Where relative paths start. */
  base?: string;
  drafting?: DraftingHost;
}

/** Version of this program, from package.json. */
export function programVersion(): string {
  return (JSON.parse(readFileSync(projectPath("package.json"), "utf8")) as { version: string }).version;
}

/**
 * Builds and fetches what is missing, then listens and starts the engines. Resolves when the proxy listens: until
 * `ready`, requests get an error that says so.
 * @throws AdedError; the signal's reason when aborted before it listens
 */
export async function startServer(config: LoadedConfig, options: ServerOptions): Promise<RunningServer> {
  const { log, signal } = options;
  const { host, port } = config.listen;
  // an engine takes minutes to build: a port that is taken is better known before
  await checkPort(host, port);
  const models = await prepare(config, options);
  signal?.throwIfAborted();

  const proxy = createProxy({
    models: models.map(({ engine, settings }) => ({ engine, aliases: settings.aliases })),
    version: programVersion(),
    log,
    draftingStatus: (name) => models.find((model) => model.name === name)?.drafting?.snapshot(),
    linkUp: (name) => models.find((model) => model.name === name)?.drafting?.connected ?? false,
    apiKeys: config.api_keys,
    allowedHosts: config.allowed_hosts,
    allowedOrigins: config.allowed_origins,
    maxBodyBytes: config.limits.body_bytes,
    engineTimeoutMs: config.limits.engine_timeout_seconds * 1000,
    uploadIdleMs: config.limits.upload_idle_seconds * 1000,
    keepAliveMs: config.limits.keep_alive_seconds * 1000,
    liveAb: config.ab,
    routes: dashboardRoutes({
      watch: (name, listener) => models.find((model) => model.name === name)?.drafting?.watch(listener),
      address: (name) => models.find((model) => model.name === name)?.engine.address,
      lines: recentLines,
    }),
    metrics: createMetrics({ process: true }),
  });
  const { url } = await proxy.listen({ host, port });
  const ready = Promise.all(models.map((model) => startModel(model, log))).then(() => undefined);
  // whoever wants to know of a failure awaits `ready`; nobody has to
  ready.catch(() => {});
  return {
    url,
    engines: models.map(({ engine }) => engine),
    ready,
    async close({ drainMs, graceMs }) {
      await proxy.close(drainMs);
      await Promise.all(models.flatMap(({ engine, drafting }) => [engine.stop(graceMs), drafting?.stop()]));
    },
  };
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
  try {
    onListening?.(server, false);
    const aborted = abortion(signal);
    await Promise.race([server.ready, aborted]);
    onListening?.(server, true);
    return await aborted;
  } finally {
    await server.close(closing());
  }
}

/** Builds the engine and fetches the model files, as far as the config needs them. */
async function prepare(config: LoadedConfig, options: ServerOptions): Promise<Served[]> {
  const entries = Object.entries(config.models);
  const base = config.file === undefined ? undefined : path.dirname(config.file);
  const sources = entries.flatMap(([, { source }]) => source ?? []);
  // all that is missing is named at once, not first the compiler and minutes later Python
  if (sources.length > 0) {
    const fetching = sources.some((source) => needsDownload(source, base));
    await requireTools([...buildTools, ...(fetching ? downloadTools : [])], options.signal);
  }
  const serverPath = sources.length > 0 ? (await ensureEngine(options)).serverPath : undefined;
  const served: Served[] = [];
  for (const [name, settings] of entries) {
    const modelPath =
      settings.source === undefined ? undefined : await ensureModel(settings.source, { ...options, base });
    const engine = createEngine({ model: name, settings, serverPath, modelPath, log: options.log });
    served.push({ name, settings, engine, base });
  }
  return served;
}

/** The engine counts as ready once its draft link is up: no request is told that it runs plain because it came early. */
async function startModel(model: Served, log: Log): Promise<void> {
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
  await engine.start();
}

function startDrafting(model: Served, log: Log): void {
  const { name, engine, settings } = model;
  const socketPath = engine.draftSocket;
  if (model.drafting !== undefined || socketPath === undefined || !settings.drafts.enabled) return;
  const {
    top_k: topK,
    max_nodes: maxNodes,
    fixed_nodes,
    matrix_memory: matrixBytes,
    search,
  } = settings.drafts;
  model.drafting = new DraftingHost({
    socketPath,
    topK,
    corpora: { corpora: corporaOf(model), topK: settings.top_k },
    drafter: { maxNodes, fixedNodes: fixed_nodes === 0 ? undefined : fixed_nodes, matrixBytes, search },
    log: log.child({ model: name }),
  });
  model.drafting.start();
}

/** The corpora of a model, with full paths. */
function corporaOf({ settings, base }: Served): WeightedCorpus[] {
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

export interface TemporaryServerOptions extends ServerOptions {
  /** Called with the address while the server runs and all engines are ready. */
  use: (url: string) => Promise<void>;
}

/** Runs a server of this config on any free port for as long as `use` takes. */
export async function withServer(config: LoadedConfig, options: TemporaryServerOptions): Promise<void> {
  const { signal, use } = options;
  const server = await startServer({ ...config, listen: { host: "127.0.0.1", port: 0 } }, options);
  try {
    await Promise.race([server.ready, abortion(signal)]);
    await use(server.url);
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

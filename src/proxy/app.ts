/**
 * The proxy: one HTTP server in front of one or more engines. Checks who may come in, picks the engine, and hands the request
 * to the forwarder that fits. Knows of engines what `Engine` tells, and of drafters what the injected status tells.
 */
import { createServer, IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Router } from "express";
import type { Engine } from "../engine/engine.ts";
import { AdedError } from "../errors.ts";
import type { Log } from "../log.ts";
import { createMetrics, type Metrics } from "../metrics.ts";
import type { ModelGate } from "../swap/gate.ts";
import { KeyRing } from "./auth.ts";
import { announcesMoreThan, collectBody, hasBody } from "./body.ts";
import { Connections } from "./connections.ts";
import {
  badRequest,
  bodyTooLarge,
  draining,
  engineTimeout,
  type Fault,
  modelNotFound,
  refusalFault,
  stateFault,
  unauthorized,
} from "./faults.ts";
import { Forwarder } from "./forward.ts";
import { type Arm, headerCount, requestHeaders, wantedArm } from "./headers.ts";
import { LiveAb, type LiveAbOptions } from "./live-ab.ts";
import { topLevelString } from "./model-field.ts";
import { type DraftingSources, ModelTable, type ProxyModel } from "./models.ts";
import { isLoopback, OriginGuard } from "./origin.ts";
import { ownScopes } from "./own-scope.ts";
import { Passthrough } from "./passthrough.ts";
import { Relay } from "./relay.ts";
import { findRoute, isHealth, isModelList, isOwn, isPublic, type Route, rawPath } from "./routes.ts";
import { ownRoutes } from "./status.ts";
import { hostOf } from "./target.ts";
import { asksForWebSocket, passUpgrade, responseOn } from "./upgrade.ts";

export interface ProxyOptions extends DraftingSources {
  /** The models served; the first one is the default. */
  models: readonly ProxyModel[];
  /** Version of this program, for /aded/status. */
  version: string;
  log: Log;
  /** Keys that requests must carry one of, plain or as `sha256:<hex>`. @default none: everyone on this machine may come in */
  apiKeys?: readonly string[];
  /** Host names to serve beside loopback names and IP addresses. */
  allowedHosts?: readonly string[];
  /** Web origins to serve beside loopback ones and the server's own. */
  allowedOrigins?: readonly string[];
  /** Largest body of a generation request, bytes. @default 256 MiB: images travel in it as base64 */
  maxBodyBytes?: number;
  /** Longest wait for the engine's response headers, ms; 0: no limit. @default 0 */
  engineTimeoutMs?: number;
  /** Longest pause of a client while it sends headers or body, ms. @default 60000 */
  uploadIdleMs?: number;
  /** Longest time that a client takes nothing of an answer that waits for it, ms; 0: no limit. @default 600000 */
  readIdleMs?: number;
  /** How long a connection may stay open between requests, ms. @default 65000 */
  keepAliveMs?: number;
  /** More routes under /aded/, such as a dashboard. */
  routes?: Router;
  /** A share of the requests runs without drafts, so that the speed-up is known at any time. @default none */
  liveAb?: LiveAbOptions;
  metrics?: Metrics;
  /** Asked before a request goes to its model's engine. @default every engine runs all the time */
  gate?: ModelGate;
  /** Which requests get a line in the log. @default "faults" */
  logRequests?: LogRequests;
}

export type LogRequests = "all" | "faults" | "none";

/** What can be changed while the proxy runs; what is left out stays. */
export type ProxyUpdate = Pick<
  ProxyOptions,
  | "apiKeys"
  | "allowedHosts"
  | "allowedOrigins"
  | "maxBodyBytes"
  | "engineTimeoutMs"
  | "uploadIdleMs"
  | "readIdleMs"
  | "logRequests"
> & { models?: readonly ProxyModel[] };

export interface ListenOptions {
  /** @default "127.0.0.1" */
  host?: string;
  /** 0: any free port. */
  port: number;
}

export interface AdedProxy {
  readonly server: Server;
  /** Requests that an engine is answering. */
  readonly running: number;
  /** Resolves with the address. @throws AdedError ADED_CONFIG (not loopback and no keys), ADED_PORT_TAKEN */
  listen(options: ListenOptions): Promise<{ host: string; port: number; url: string }>;
  /** Takes over other settings; requests that are being answered keep theirs. @throws AdedError ADED_CONFIG, with all as it was */
  update(changes: ProxyUpdate): void;
  /** Takes no more requests, lets running ones finish for `drainMs`, then breaks them off. @default 10000 ms */
  close(drainMs?: number): Promise<void>;
}

const MAX_HEADER_BYTES = 64 * 1024;
/** Between two lines that tell how the wait for a model goes, ms. */
const PROGRESS_MS = 1000;
/** Silence on a connection before the kernel asks whether the client is still there, ms. */
const KEEP_ALIVE_PROBE_MS = 60_000;
const DEFAULT_MAX_BODY = 256 << 20;

/** Node asks `upgrade` to decide whether a request leaves HTTP; only WebSocket handshakes do, as with the engine itself. */
class ClientRequest extends IncomingMessage {
  #announced = false;

  get upgrade(): boolean {
    return this.#announced && (this.method === "CONNECT" || asksForWebSocket(this.headers));
  }

  set upgrade(announced: unknown) {
    if (#announced in this) this.#announced = Boolean(announced);
  }
}

/** `x-aded-progress: 1` on a request for a stream: tell how the wait for the model goes. */
function wantsProgress(request: IncomingMessage, body: Buffer | undefined): boolean {
  if (body === undefined || request.headers["x-aded-progress"] !== "1") return false;
  try {
    return (JSON.parse(body.toString("utf8")) as { stream?: unknown } | null)?.stream === true;
  } catch {
    return false;
  }
}

export function createProxy(options: ProxyOptions): AdedProxy {
  return new ProxyServer(options);
}

class ProxyServer implements AdedProxy {
  readonly server: Server;
  readonly #log: Log;
  readonly #models: ModelTable;
  #keys: KeyRing;
  #guard: OriginGuard;
  readonly #gate: ModelGate | undefined;
  #logRequests: LogRequests;
  readonly #metrics: Metrics;
  readonly #connections: Connections;
  readonly #forwarder = new Forwarder();
  readonly #passthrough = new Passthrough();
  readonly #own: (request: IncomingMessage, response: ServerResponse) => void;
  readonly #arms: Record<Arm, number> = { on: 0, off: 0 };
  readonly #liveAb: LiveAb;
  #maxBody: number;
  #engineTimeout: number;
  #uploadIdle: number;
  #readIdle: number;

  constructor(options: ProxyOptions) {
    this.#log = options.log;
    this.#models = new ModelTable(options.models, options);
    this.#liveAb = new LiveAb(options.liveAb ?? { share: 0, by: "request", seed: 1 });
    this.#keys = new KeyRing(options.apiKeys);
    this.#guard = new OriginGuard(options);
    this.#gate = options.gate;
    this.#logRequests = options.logRequests ?? "faults";
    this.#metrics = options.metrics ?? createMetrics();
    this.#maxBody = options.maxBodyBytes ?? DEFAULT_MAX_BODY;
    this.#engineTimeout = options.engineTimeoutMs ?? 0;
    this.#uploadIdle = options.uploadIdleMs ?? 60_000;
    this.#readIdle = options.readIdleMs ?? 600_000;
    this.server = createServer({
      IncomingMessage: ClientRequest,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: this.#uploadIdle,
      requestTimeout: 0, // a long upload is fine; a stalled one is cut by the socket's own timeout
      connectionsCheckingInterval: Math.min(5000, this.#uploadIdle),
      keepAliveTimeout: options.keepAliveMs ?? 65_000,
      noDelay: true,
      // a client whose machine is gone says so to nobody: the kernel asks
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_PROBE_MS,
      insecureHTTPParser: false,
      requireHostHeader: true,
    });
    this.#connections = new Connections(this.server);
    this.#own = ownRoutes({
      version: options.version,
      models: this.#models,
      metrics: this.#metrics,
      arms: this.#arms,
      routes: options.routes,
      liveAb: this.#liveAb,
      gate: options.gate,
      running: () => this.running,
      draining: () => this.#connections.draining,
    });
    this.server.on("request", (request, response) => this.#handle(request, response));
    this.server.on("checkContinue", (request, response) => this.#handle(request, response));
    this.server.on("upgrade", (request, socket, head) =>
      this.#handleUpgrade(request, socket as Socket, head),
    );
  }

  get running(): number {
    return this.#connections.running;
  }

  async listen({
    host = "127.0.0.1",
    port,
  }: ListenOptions): Promise<{ host: string; port: number; url: string }> {
    if (this.#keys.empty && !isLoopback(host)) {
      throw new AdedError("ADED_CONFIG", `refusing to listen on ${host} without an API key`, {
        hint: "Configure an API key, or listen on 127.0.0.1.",
      });
    }
    await new Promise<void>((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => {
        const taken = error.code === "EADDRINUSE";
        reject(
          !taken
            ? error
            : new AdedError("ADED_PORT_TAKEN", `port ${port} of ${host} is in use`, {
                hint: "Stop what listens there, or choose another port with ADED_PORT.",
                cause: error,
              }),
        );
      };
      this.server.once("error", failed);
      this.server.listen({ host, port }, () => {
        this.server.off("error", failed);
        resolve();
      });
    });
    const bound = this.server.address() as AddressInfo;
    const name = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
    return { host: bound.address, port: bound.port, url: `http://${name}:${bound.port}` };
  }

  update(changes: ProxyUpdate): void {
    const keys = changes.apiKeys === undefined ? this.#keys : new KeyRing(changes.apiKeys);
    if (changes.models !== undefined) this.#models.replace(changes.models);
    this.#keys = keys;
    if (changes.allowedHosts !== undefined || changes.allowedOrigins !== undefined) {
      this.#guard = new OriginGuard(changes);
    }
    this.#maxBody = changes.maxBodyBytes ?? this.#maxBody;
    this.#engineTimeout = changes.engineTimeoutMs ?? this.#engineTimeout;
    this.#uploadIdle = changes.uploadIdleMs ?? this.#uploadIdle;
    this.#readIdle = changes.readIdleMs ?? this.#readIdle;
    this.#logRequests = changes.logRequests ?? this.#logRequests;
  }

  async close(drainMs = 10_000): Promise<void> {
    await this.#connections.drain(drainMs);
    this.#passthrough.close();
    this.#forwarder.close();
  }

  /** Who may not come in, and why. The scope of the key otherwise. */
  #admit(request: IncomingMessage, path: string): { scope: string } | { fault: Fault } {
    if (headerCount(request.rawHeaders, "host") > 1) {
      return { fault: badRequest("The request has more than one Host header", "duplicate_host") };
    }
    const fault = this.#guard.check(request);
    if (fault !== undefined) return { fault };
    const scope = this.#keys.scopeOf(request);
    if (scope !== undefined) return { scope };
    return isPublic(request.method, path) ? { scope: "" } : { fault: unauthorized() };
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    const context = { connections: this.#connections, metrics: this.#metrics };
    const relay = new Relay(request, response, context, { route: "other", readIdleMs: this.#readIdle });
    if (this.#logRequests !== "none") this.#logWhenDone(relay);
    const fault = this.#route(relay);
    if (fault !== undefined) relay.fail(fault);
  }

  #logWhenDone(relay: Relay): void {
    // express shortens the target while it routes
    const path = rawPath(relay.request.url ?? "/");
    relay.onFinish = (ms) => this.#logAnswer(relay, path, ms);
    // broken off: it will not finish
    relay.onBreak = () => this.#logAnswer(relay, path);
  }

  #logAnswer({ request, response, requestId, model, arm, fault }: Relay, path: string, ms?: number): void {
    if (fault === undefined && this.#logRequests !== "all") return;
    const line = {
      request_id: requestId,
      method: request.method,
      path,
      status: response.statusCode,
      model,
      arm,
      ms: ms === undefined ? undefined : Math.round(ms * 10) / 10,
    };
    if (fault === undefined) this.#log.info(line, "request");
    else this.#log.warn({ ...line, fault: fault.kind, reason: fault.body.error.message }, "request failed");
  }

  /** Starts what answers the request; a fault is returned when nothing can. */
  #route(relay: Relay): Fault | undefined {
    const { request, response } = relay;
    const path = rawPath(request.url ?? "/");
    const admitted = this.#admit(request, path);
    if ("fault" in admitted) return admitted.fault;
    if (isOwn(path)) {
      if (this.#connections.draining) response.shouldKeepAlive = false;
      relay.describe({ route: "own" });
      ownScopes.set(request, admitted.scope);
      this.#connections.markOwn(request.socket, relay);
      this.#own(request, response);
      return undefined;
    }
    if (this.#connections.draining) return draining();
    if (isModelList(request.method, path) && (!this.#models.single || this.#unloaded(this.#models.default))) {
      relay.json(200, this.#models.listing(this.#gate));
      return undefined;
    }
    if (this.#gate !== undefined && isHealth(request.method, path) && this.#healthy) {
      relay.json(200, { status: "ok" });
      return undefined;
    }
    const route = findRoute(request.method, path);
    if (route !== undefined && (route.kind === "generate" || !this.#models.single)) {
      return this.#collect(relay, route, admitted.scope);
    }
    return this.#pass(relay, admitted.scope);
  }

  /** Not in memory, but started as soon as it is asked for. */
  #unloaded(engine: Engine): boolean {
    const status = this.#gate?.status(engine.model);
    return (
      status !== undefined && (status.phase === "stopped" || status.phase === "stopping") && !status.error
    );
  }

  /** Where models come and go, health is the proxy's own: a model that is not loaded is no fault. */
  get #healthy(): boolean {
    return this.#models.single ? this.#unloaded(this.#models.default) : true;
  }

  /** Has `go` send the request on once the model's engine takes it. */
  #admitted(
    relay: Relay,
    engine: Engine,
    options: { quiet: boolean; body?: Buffer },
    go: () => Fault | undefined,
  ): Fault | undefined {
    relay.model = engine.model;
    const gate = this.#gate;
    if (gate === undefined) return go();
    let timer: NodeJS.Timeout | undefined;
    const visit = gate.enter(
      engine.model,
      {
        granted: () => {
          clearInterval(timer);
          const fault = relay.done ? undefined : go();
          if (fault !== undefined) relay.fail(fault);
        },
        refused: (refusal) => relay.fail(refusalFault(engine.model, refusal)),
      },
      options,
    );
    relay.onDone(() => {
      clearInterval(timer);
      visit.leave();
    });
    if (wantsProgress(relay.request, options.body)) {
      const tell = (): void => {
        const progress = visit.progress();
        if (progress !== undefined) relay.announce(`aded ${JSON.stringify(progress)}`);
      };
      tell();
      if (!relay.done && visit.progress() !== undefined) timer = setInterval(tell, PROGRESS_MS);
    }
    return undefined;
  }

  /** Reads the body of a request to one of the known routes, then sends it on. */
  #collect(relay: Relay, route: Route, scope: string): Fault | undefined {
    const { request } = relay;
    relay.describe({ route: route.name, dialect: route.dialect });
    const asked = request.headers["x-aded"];
    const wanted = route.kind === "generate" ? wantedArm(asked) : undefined;
    if (route.kind === "generate" && wanted === undefined) {
      return badRequest(
        `The header x-aded is '${String(asked)}'; it must be 'on' or 'off'`,
        "invalid_x_aded",
      );
    }
    if (announcesMoreThan(request, this.#maxBody)) return bodyTooLarge(this.#maxBody);
    this.#invite(relay);
    collectBody(request, this.#maxBody, {
      tooLarge: () => relay.fail(bodyTooLarge(this.#maxBody)),
      done: (body) => {
        const fault = this.#forward(relay, body, { wanted, scope });
        if (fault !== undefined) relay.fail(fault);
      },
    });
    return undefined;
  }

  /** Sends a request to the engine that the `model` in its body names. */
  #forward(
    relay: Relay,
    body: Buffer,
    { wanted, scope }: { wanted?: Arm; scope: string },
  ): Fault | undefined {
    const engine = this.#engineNamed(this.#models.single ? undefined : topLevelString(body, "model"));
    if ("fault" in engine) return engine.fault;
    return this.#admitted(relay, engine, { quiet: false, body }, () =>
      this.#dispatch(relay, engine, { body, wanted, scope }),
    );
  }

  #dispatch(
    relay: Relay,
    engine: Engine,
    { body, wanted, scope }: { body: Buffer; wanted?: Arm; scope: string },
  ): Fault | undefined {
    const { request } = relay;
    let ask = wanted;
    if (wanted !== undefined) {
      const free = this.#liveAb.enabled && request.headers["x-aded"] === undefined;
      const chosen = free ? this.#liveAb.choose({ scope, body }) : wanted;
      relay.arm = this.#models.arm(engine, chosen);
      this.#arms[relay.arm]++;
      ask = this.#models.asked(engine, chosen, relay.arm);
      // a request that would have had drafts and got none is of neither arm
      if (free && relay.arm === chosen) {
        relay.onEnd = (tail) => this.#liveAb.answered(engine.model, chosen, tail);
      }
    }
    const fault = stateFault(engine.snapshot());
    if (fault !== undefined) return fault;
    this.#awaitHeaders(relay, engine);
    const headers = requestHeaders(request.rawHeaders, {
      scope,
      authorization: engine.authorization,
      wanted: ask,
      buffered: true,
      host: hostOf(engine.address),
    });
    const { method = "POST", url: target = "/" } = request;
    this.#forwarder.forward(engine, { method, target, headers, body }, relay);
    return undefined;
  }

  /** Pipes a request to the engine that its query names (`?model=`), as llama-server's own router has it. */
  #pass(relay: Relay, scope: string): Fault | undefined {
    const { request } = relay;
    const name = this.#modelOfQuery(request);
    const engine = name === undefined ? this.#anyEngine() : this.#engineNamed(name);
    if ("fault" in engine) return engine.fault;
    const go = (): Fault | undefined => {
      const fault = stateFault(engine.snapshot());
      if (fault !== undefined) return fault;
      this.#invite(relay);
      this.#awaitHeaders(relay, engine);
      this.#passthrough.pass(request, relay.response, { engine, relay, scope });
      return undefined;
    };
    const looking = request.method === "GET" || request.method === "HEAD" || request.method === "OPTIONS";
    // who looks at an engine that is being loaded is told so, as llama-server tells it
    if (looking && engine.snapshot().state !== "stopped" && engine.snapshot().state !== "ready") return go();
    return this.#admitted(relay, engine, { quiet: looking }, go);
  }

  /** The default model's engine, or another one that runs where that one is not loaded. */
  #anyEngine(): Engine {
    const { default: first, list } = this.#models;
    if (this.#gate === undefined || first.snapshot().state === "ready") return first;
    return list.find((engine) => engine.snapshot().state === "ready") ?? first;
  }

  #handleUpgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const context = { connections: this.#connections, metrics: this.#metrics };
    const relay = new Relay(request, responseOn(request, socket), context, {
      route: "websocket",
      readIdleMs: this.#readIdle,
    });
    const fault = this.#upgrade(relay, socket, head);
    if (fault !== undefined) relay.fail(fault);
  }

  #upgrade(relay: Relay, socket: Socket, head: Buffer): Fault | undefined {
    const { request } = relay;
    const admitted = this.#admit(request, rawPath(request.url ?? "/"));
    if ("fault" in admitted) return admitted.fault;
    if (this.#connections.draining) return draining();
    const name = this.#modelOfQuery(request);
    const engine = name === undefined ? this.#anyEngine() : this.#engineNamed(name);
    if ("fault" in engine) return engine.fault;
    relay.model = engine.model;
    const fault = stateFault(engine.snapshot());
    if (fault !== undefined) return fault;
    this.#awaitHeaders(relay, engine);
    this.#holdWhileOpen(engine, socket);
    passUpgrade(engine, relay, { socket, head, scope: admitted.scope, connections: this.#connections });
    return undefined;
  }

  /** A tunnel counts as a running request: no swap cuts it off. */
  #holdWhileOpen(engine: Engine, socket: Socket): void {
    const nothing = (): void => undefined;
    const visit = this.#gate?.enter(engine.model, { granted: nothing, refused: nothing });
    if (visit !== undefined) socket.once("close", () => visit.leave());
  }

  #engineNamed(name: string | undefined): Engine | { fault: Fault } {
    return this.#models.find(name) ?? { fault: modelNotFound(name ?? "", this.#models.names) };
  }

  #modelOfQuery(request: IncomingMessage): string | undefined {
    if (this.#models.single) return undefined;
    const target = request.url ?? "/";
    return new URLSearchParams(target.slice(rawPath(target).length)).get("model") ?? undefined;
  }

  /** Lets the client send its body, and watches that it goes on doing so. */
  #invite({ request, response }: Relay): void {
    if (request.headers.expect !== undefined) {
      response.writeContinue();
      delete request.headers.expect; // met: neither Node's client nor http-proxy shall act on it
    }
    if (!hasBody(request)) return;
    request.socket.setTimeout(this.#uploadIdle);
    request.once("end", () => request.socket.setTimeout(0));
  }

  #awaitHeaders(relay: Relay, engine: Engine): void {
    const ms = this.#engineTimeout;
    relay.expectHeaders(ms, () => {
      this.#log.warn({ model: engine.model, ms }, "the engine did not answer in time");
      return engineTimeout(engine.model, ms);
    });
  }
}

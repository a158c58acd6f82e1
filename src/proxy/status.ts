/** What the proxy reports of itself: /aded/status, /aded/metrics, /livez, /readyz. */
import express, { type Express, type Router } from "express";
import type { DraftingSnapshot, Engine, EngineSnapshot } from "../engine/engine.ts";
import type { Metrics } from "../metrics.ts";
import type { GateStatus, ModelGate } from "../swap/gate.ts";
import { notFound } from "./faults.ts";
import type { Arm } from "./headers.ts";
import type { LiveAb, LiveAbReport } from "./live-ab.ts";
import type { ModelTable } from "./models.ts";

/** One model in `/aded/status`: its engine, and what its drafter reports. Null: nothing measured yet. Times in µs. */
export interface ModelStatus extends Omit<DraftingSnapshot, "tree" | "matrix" | "controller"> {
  state: EngineSnapshot["state"];
  engine_pid: number | null;
  kind: "patched" | "stock" | null;
  restarts: number;
  reason?: string;
  /** False: chains only. */
  tree: boolean | null;
  matrix: DraftingSnapshot["matrix"] | null;
  controller: DraftingSnapshot["controller"] | null;
  /** The running A/B, where the config has one. */
  ab?: LiveAbReport;
  /** How often the drafter's thread was started again. */
  drafter_restarts?: number;
  /** Requests that the engine answers and that wait for it, and how often it was started; only where models come and go. */
  requests?: { running: number; waiting: number };
  starts?: number;
}

const NO_DRAFTER: Omit<ModelStatus, "state" | "engine_pid" | "kind" | "restarts"> = {
  link: "off",
  tree: null,
  steps: 0,
  tokens: 0,
  tokens_per_step: null,
  draft_us: { p50: null, p99: null },
  link_us: { p50: null, p99: null },
  exchange_us: { p50: null, p99: null },
  cost_us: {},
  matrix: null,
  controller: null,
};

export interface ProxyStatus {
  version: string;
  uptime_s: number;
  draining: boolean;
  /** Requests that an engine is answering at this moment; this one is none. */
  running: number;
  /** Generation requests since the start, by arm. */
  arms: Record<Arm, number>;
  models: Record<string, ModelStatus>;
}

export interface StatusSources {
  version: string;
  models: ModelTable;
  metrics: Metrics;
  arms: Record<Arm, number>;
  liveAb?: LiveAb;
  running(): number;
  draining(): boolean;
  gate?: ModelGate;
  /** More routes under /aded/, such as a dashboard. */
  routes?: Router;
}

function modelStatus(
  engine: Engine,
  drafting: DraftingSnapshot | undefined,
  gate: GateStatus | undefined,
): ModelStatus {
  const { state, pid, kind, restarts, reason } = engine.snapshot();
  const { restarts: drafterRestarts, tree = null, ...figures } = drafting ?? {};
  return {
    state,
    engine_pid: pid ?? null,
    kind: kind ?? null,
    restarts,
    reason: reason ?? gate?.error ?? gate?.note,
    ...(gate && { requests: { running: gate.running, waiting: gate.waiting }, starts: gate.starts }),
    ...NO_DRAFTER,
    ...figures,
    tree,
    drafter_restarts: drafterRestarts,
  };
}

export function proxyStatus(sources: StatusSources, uptimeSeconds: number): ProxyStatus {
  const { models } = sources;
  return {
    version: sources.version,
    uptime_s: Math.round(uptimeSeconds * 10) / 10,
    draining: sources.draining(),
    running: sources.running(),
    arms: { ...sources.arms },
    models: Object.fromEntries(
      models.list.map((engine) => [
        engine.model,
        {
          ...modelStatus(engine, models.drafting(engine), sources.gate?.status(engine.model)),
          ab: sources.liveAb?.report(engine.model),
        },
      ]),
    ),
  };
}

/** The proxy's own routes. Ready means: not going down, and at least one engine takes requests. */
export function ownRoutes(sources: StatusSources): Express {
  const started = performance.now();
  const status = (): ProxyStatus => proxyStatus(sources, (performance.now() - started) / 1000);
  const setGauges = statusGauges(sources);
  const app = express();
  app.disable("x-powered-by");
  app.disable("etag");
  app.enable("case sensitive routing");
  app.get("/livez", (_request, response) => {
    response.json({ status: "ok" });
  });
  app.get("/readyz", (_request, response) => {
    const states = Object.fromEntries(
      sources.models.list.map((engine) => [engine.model, engine.snapshot().state]),
    );
    const startable = sources.gate !== undefined && Object.values(states).includes("stopped");
    const ready = !sources.draining() && (startable || Object.values(states).includes("ready"));
    response.status(ready ? 200 : 503).json({ status: ready ? "ok" : "unavailable", models: states });
  });
  app.get("/aded/status", (_request, response) => {
    response.set("Cache-Control", "no-store").json(status());
  });
  app.get("/aded/metrics", async (_request, response) => {
    setGauges();
    response.type(sources.metrics.registry.contentType).send(await sources.metrics.registry.metrics());
  });
  if (sources.routes !== undefined) app.use("/aded", sources.routes);
  app.use((request, response) => {
    response.status(404).json(notFound(request.path).body);
  });
  return app;
}

/** Makes the gauges that mirror the status. @returns what sets them all, to be called before they are read */
function statusGauges({ models, metrics, running, gate, liveAb }: StatusSources): () => void {
  const requests = metrics.gauge("aded_requests_running", "Requests being answered", []);
  const up = metrics.gauge("aded_engine_up", "1 when the model's engine takes requests", ["model"]);
  const restarts = metrics.gauge("aded_engine_restarts", "Restarts of the model's engine", ["model"]);
  const states = metrics.gauge("aded_engine_state", "1 for the state that the model's engine is in", [
    "model",
    "state",
  ]);
  const active = metrics.gauge("aded_model_requests_running", "Requests that the engine answers", ["model"]);
  const queue = metrics.gauge("aded_model_requests_waiting", "Requests that wait for the model", ["model"]);
  const link = metrics.gauge("aded_link_up", "1 when the draft link is connected", ["model"]);
  const steps = metrics.gauge("aded_steps", "Decode steps seen by the drafter", ["model"]);
  const tokens = metrics.gauge("aded_tokens", "Tokens emitted in those steps", ["model"]);
  const rows = metrics.gauge("aded_matrix_rows", "Rows of the tri-gram matrix", ["model"]);
  const bytes = metrics.gauge("aded_matrix_bytes", "Memory of the tri-gram matrix", ["model"]);
  const times = metrics.gauge("aded_exchange_us", "Time of drafting and of the link, µs", [
    "model",
    "part",
    "quantile",
  ]);
  const abRatio = metrics.gauge("aded_ab_ratio", "Live A/B: time per token without drafts / with drafts", [
    "model",
    "bound",
  ]);
  const abRequests = metrics.gauge("aded_ab_requests", "Requests that the live A/B has measured", [
    "model",
    "arm",
  ]);
  return () => {
    requests.set(running());
    for (const each of [times, up, states, restarts, active, queue, link, abRatio]) each.reset();
    for (const engine of models.list) {
      const { model } = engine;
      const snapshot = engine.snapshot();
      up.set({ model }, snapshot.state === "ready" ? 1 : 0);
      restarts.set({ model }, snapshot.restarts);
      const ab = liveAb?.report(model);
      if (ab !== undefined) {
        for (const arm of ["on", "off"] as const) abRequests.set({ model, arm }, ab.arms[arm].requests);
        if (ab.ratio !== null) abRatio.set({ model, bound: "estimate" }, ab.ratio);
        if (ab.ci !== null) {
          abRatio.set({ model, bound: "low" }, ab.ci[0]);
          abRatio.set({ model, bound: "high" }, ab.ci[1]);
        }
      }
      states.set({ model, state: snapshot.state }, 1);
      const status = gate?.status(model);
      if (status !== undefined) {
        active.set({ model }, status.running);
        queue.set({ model }, status.waiting);
      }
      const drafting = models.drafting(engine);
      if (drafting === undefined) continue;
      link.set({ model }, drafting.link === "connected" ? 1 : 0);
      steps.set({ model }, drafting.steps);
      tokens.set({ model }, drafting.tokens);
      rows.set({ model }, drafting.matrix.rows);
      bytes.set({ model }, drafting.matrix.bytes);
      for (const part of ["draft", "link"] as const) {
        const { p50, p99 } = drafting[`${part}_us`];
        if (p50 !== null) times.set({ model, part, quantile: "0.5" }, p50);
        if (p99 !== null) times.set({ model, part, quantile: "0.99" }, p99);
      }
    }
  };
}

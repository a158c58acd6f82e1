/** Counters of the proxy in Prometheus' format, one registry per proxy. Imports nothing of ours. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

export interface Metrics {
  registry: Registry;
  /** Answers given, by route, arm ("on", "off", "none"), status code and model. */
  requests: Counter<"route" | "arm" | "code" | "model">;
  /** Answers that failed or broke off, by kind of fault. */
  faults: Counter<"kind">;
  /** The first piece of a generated answer was sent, so many seconds after its request came. */
  firstPiece(model: string, seconds: number): void;
  /** A further piece of a stream was sent, so many seconds after the one before it. */
  nextPiece(model: string, seconds: number): void;
  /** An answer is complete; `tail`: its last bytes as Latin-1, in which the engine tells its counts. */
  answered(model: string, tail: string): void;
  /** Starts and stops of a model's engine, with how long a start took. */
  swapped(model: string, what: "starting" | "ready" | "stopped" | "failed", ms: number): void;
  /** Requests that were refused while they waited for a model. */
  refused(model: string, kind: string): void;
  /** A gauge; who makes it sets it. */
  gauge<L extends string>(name: string, help: string, labels: readonly L[]): Gauge<L>;
}

/** @param process true: also report memory, CPU time and event-loop lag of this process */
export function createMetrics(options: { process?: boolean } = {}): Metrics {
  const registry = new Registry();
  const model = ["model"] as const;
  const counter = (name: string, help: string): Counter<"model"> =>
    new Counter({ name, help, labelNames: model, registers: [registry] });
  const first = new Histogram({
    name: "aded_ttft_seconds",
    help: "Time from a generation request to the first piece of its answer",
    labelNames: model,
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120],
    registers: [registry],
  });
  const next = new Histogram({
    name: "aded_itl_seconds",
    help: "Time between two pieces of a stream",
    labelNames: model,
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    registers: [registry],
  });
  const load = new Histogram({
    name: "aded_model_load_seconds",
    help: "Time that starting a model's engine took",
    labelNames: model,
    buckets: [0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600],
    registers: [registry],
  });
  const swaps = new Counter({
    name: "aded_model_changes_total",
    help: "Starts, ready engines, stops and failed starts",
    labelNames: ["model", "what"],
    registers: [registry],
  });
  const refusals = new Counter({
    name: "aded_queue_refusals_total",
    help: "Requests refused while they waited for a model",
    labelNames: ["model", "kind"],
    registers: [registry],
  });
  const prompt = counter("aded_prompt_tokens_total", "Tokens of prompts, without those found in the cache");
  const generated = counter("aded_generated_tokens_total", "Tokens generated");
  const drafted = counter("aded_drafted_tokens_total", "Draft tokens verified, as the engine counts them");
  const accepted = counter("aded_accepted_tokens_total", "Draft tokens accepted, as the engine counts them");
  if (options.process) collectProcess(registry);
  return {
    registry,
    requests: new Counter({
      name: "aded_requests_total",
      help: "Answers given to clients",
      labelNames: ["route", "arm", "code", "model"],
      registers: [registry],
    }),
    faults: new Counter({
      name: "aded_request_faults_total",
      help: "Answers that failed or broke off",
      labelNames: ["kind"],
      registers: [registry],
    }),
    firstPiece: (name, seconds) => first.observe({ model: name }, seconds),
    nextPiece: (name, seconds) => next.observe({ model: name }, seconds),
    answered(name, tail) {
      const counts = countsOf(tail);
      if (counts.prompt > 0) prompt.inc({ model: name }, counts.prompt);
      if (counts.generated > 0) generated.inc({ model: name }, counts.generated);
      if (counts.drafted > 0) drafted.inc({ model: name }, counts.drafted);
      if (counts.accepted > 0) accepted.inc({ model: name }, counts.accepted);
    },
    swapped(name, what, ms) {
      swaps.inc({ model: name, what });
      if (what === "ready") load.observe({ model: name }, ms / 1000);
    },
    refused: (name, kind) => refusals.inc({ model: name, kind }),
    gauge: (name, help, labelNames) => new Gauge({ name, help, labelNames, registers: [registry] }),
  };
}

/**
 * The engine's counts from the end of an answer: its `timings`, or else the usage of the OpenAI and Anthropic APIs. Within a
 * JSON string a quote is escaped, so no generated text can pass for them.
 */
export function countsOf(text: string): Record<"prompt" | "generated" | "drafted" | "accepted", number> {
  const last = (...names: string[]): number => {
    for (const name of names) {
      const at = text.lastIndexOf(`"${name}":`);
      if (at >= 0) return Number.parseInt(text.slice(at + name.length + 3), 10) || 0;
    }
    return 0;
  };
  return {
    prompt: last("prompt_n", "prompt_tokens", "input_tokens"),
    generated: last("predicted_n", "completion_tokens", "output_tokens"),
    drafted: last("draft_n"),
    accepted: last("draft_n_accepted"),
  };
}

/** Longest that a timer waits, ms. */
const NEVER_MS = 2 ** 31 - 1;

/**
 * What prom-client tells of a process, but for the delays of the event loop: to measure them it wakes up a hundred times a second, idle or not,
 * and each time takes a core away from the engine's threads. What a scrape itself waited (nodejs_eventloop_lag_seconds) stays.
 */
function collectProcess(registry: Registry): void {
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: NEVER_MS });
  for (const { name } of registry.getMetricsAsArray()) {
    if (/^nodejs_eventloop_lag_(?!seconds$)/.test(name)) registry.removeSingleMetric(name);
  }
}

/** Counters of the proxy in Prometheus' format, one registry per proxy. Imports nothing of ours. */
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";

export interface Metrics {
  registry: Registry;
  /** Answers given, by route, arm ("on", "off", "none") and status code. */
  requests: Counter<"route" | "arm" | "code">;
  /** Answers that failed or broke off, by kind of fault. */
  faults: Counter<"kind">;
  /** A gauge; who makes it sets it. */
  gauge<L extends string>(name: string, help: string, labels: readonly L[]): Gauge<L>;
}

/** @param process true: also report memory, CPU time and event-loop lag of this process */
export function createMetrics(options: { process?: boolean } = {}): Metrics {
  const registry = new Registry();
  if (options.process) collectDefaultMetrics({ register: registry });
  return {
    registry,
    requests: new Counter({
      name: "aded_requests_total",
      help: "Answers given to clients",
      labelNames: ["route", "arm", "code"],
      registers: [registry],
    }),
    faults: new Counter({
      name: "aded_request_faults_total",
      help: "Answers that failed or broke off",
      labelNames: ["kind"],
      registers: [registry],
    }),
    gauge: (name, help, labelNames) => new Gauge({ name, help, labelNames, registers: [registry] }),
  };
}

/** The drafter's thread: holds the draft link and the drafter, and reports to the main thread now and then. */
import { parentPort, workerData } from "node:worker_threads";
import type { Drafter, EngineInfo } from "../drafter/draft.ts";
import type { DrafterOptions } from "../drafter/options.ts";
import { DraftLinkClient, type LinkLog } from "./client.ts";
import { LatencyRing } from "./latency.ts";
import type { LogLevel, RetryMessage, StopMessage, WorkerInput, WorkerMessage } from "./worker-messages.ts";

interface DrafterModule {
  AdedDrafter: new (info: EngineInfo, options: DrafterOptions) => Drafter;
  /** Called once before the first step. */
  warmUp?: (info: EngineInfo, options: DrafterOptions) => void;
}

if (parentPort === null) throw new Error("src/link/worker.ts runs only as a worker thread of the proxy");
const port = parentPort;
const input = workerData as WorkerInput;
const drafting = (await import(input.drafterModule)) as DrafterModule;

function post(message: WorkerMessage): void {
  port.postMessage(message);
}

const logAt =
  (level: LogLevel) =>
  (fields: object, message: string): void =>
    post({ type: "log", level, fields, message });
const log: LinkLog = {
  debug: logAt("debug"),
  info: logAt("info"),
  warn: logAt("warn"),
  error: logAt("error"),
};

const client = new DraftLinkClient({
  socketPath: input.socketPath,
  topK: input.topK,
  createDrafter: (info) => {
    drafting.warmUp?.(info, input.drafterOptions);
    return new drafting.AdedDrafter(info, input.drafterOptions);
  },
  log,
  draftLatency: new LatencyRing(input.draftLatency),
  linkLatency: new LatencyRing(input.linkLatency),
  onState: () => report(true),
});

let lastSteps = -1;

/** @param always also when no step was made since the last report */
function report(always: boolean): void {
  const stats = client.drafter?.stats();
  const steps = stats?.steps ?? -1;
  if (!always && steps === lastSteps) return;
  lastSteps = steps;
  post({ type: "status", link: client.state, tree: client.info?.tree, stats, counters: client.counters });
}

const timer = setInterval(() => report(false), input.statusMs);

port.on("message", (message: StopMessage | RetryMessage) => {
  if (message.type === "retry") return client.retryNow();
  clearInterval(timer);
  client.stop();
  report(true);
  port.close();
});

client.start();

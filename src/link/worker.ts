/** The drafter's thread: holds the draft link and the drafter, and reports to the main thread now and then. */
import { existsSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { FloorTable } from "../corpus/floor.ts";
import type { Drafter, EngineInfo } from "../drafter/draft.ts";
import type { DrafterOptions } from "../drafter/options.ts";
import { Recording, recordTraffic } from "../simulator/recorder.ts";
import { replayEngine } from "../simulator/replay.ts";
import { DraftLinkClient, type LinkLog } from "./client.ts";
import { GarbageWatch } from "./garbage.ts";
import { collectAll, collectYoung } from "./garbage-collector.ts";
import { LatencyRing } from "./latency.ts";
import { SnapshotKeeper } from "./snapshot-keeper.ts";
import { StepWatch } from "./watch.ts";
import type {
  FloorData,
  LogLevel,
  MainMessage,
  PurgeMessage,
  WorkerInput,
  WorkerMessage,
} from "./worker-messages.ts";

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

const recording =
  input.record === undefined
    ? undefined
    : new Recording(input.record, {
        onEnd: (reason) => log.warn({ file: input.record, reason }, "nothing is recorded any more"),
      });

let floor: FloorData | undefined = input.floor;
let floorRefused: { reason: string; hint: string } | undefined;

/** Gives a drafter the corpora, if they belong to its model. */
function useFloor(drafter: Drafter, info: EngineInfo): void {
  floorRefused = undefined;
  if (floor === undefined) return;
  const names = floor.files.join(", ");
  if (floor.vocabHash !== info.vocabHash) {
    floorRefused = {
      reason: `${names} belongs to the vocabulary ${floor.vocabHash}, ${info.model} has ${info.vocabHash}`,
      hint: "token ids mean other texts there: build it with this model's tokenizer (npx aded corpus build --model)",
    };
  } else if (drafter.useFloor?.(new FloorTable(floor.buffer)) === false) {
    floorRefused = {
      reason: `${names} needs ${floor.buffer.byteLength} bytes of the matrix's memory`,
      hint: "give more with matrix_memory",
    };
  }
  if (floorRefused !== undefined) drafter.useFloor?.(undefined);
}

const keeper = input.snapshots === undefined ? undefined : new SnapshotKeeper({ ...input.snapshots, log });

const watch = new StepWatch((steps) => post({ type: "steps", steps }));

/** What most engines say of themselves. The same code runs for all of them that take trees. */
const USUAL = replayEngine([], 63, { nVocab: 32_000, topK: input.topK });

/** Whether what runs for trees (or for chains) is compiled. */
const warm = { trees: false, chains: false };

function warmUp(info: EngineInfo): void {
  const shape = info.tree ? "trees" : "chains";
  // no room is kept for corpora there: its matrix is small
  if (!warm[shape]) drafting.warmUp?.(info, { ...input.drafterOptions, floorBytes: 0 });
  warm[shape] = true;
}

// while the engine loads its model
if (!existsSync(input.socketPath)) warmUp(USUAL);

/** So long without a request under way. A prompt being prefilled is none yet: the engine tells of it with its first token. */
const REST_MS = 250;

const garbage = new GarbageWatch();
let rest: NodeJS.Timeout | undefined;

const client = new DraftLinkClient({
  socketPath: input.socketPath,
  topK: input.topK,
  createDrafter: (info) => {
    warmUp(info);
    const drafter = watch.attach(new drafting.AdedDrafter(info, input.drafterOptions));
    useFloor(drafter, info);
    keeper?.attach(drafter, info);
    if (recording !== undefined) recordTraffic(drafter, info, recording);
    // compiling and a snapshot leave garbage before the first request
    collectAll();
    garbage.start();
    return drafter;
  },
  log,
  draftLatency: new LatencyRing(input.draftLatency),
  linkLatency: new LatencyRing(input.linkLatency),
  exchangeLatency: new LatencyRing(input.exchangeLatency),
  onState: () => report(true),
  onRest: () => {
    clearTimeout(rest);
    rest = setTimeout(() => client.atRest && collectYoung(), REST_MS);
  },
});

let lastSteps = -1;

/** @param always also when no step was made since the last report */
function report(always: boolean): void {
  const stats = client.drafter?.stats();
  const steps = stats?.steps ?? -1;
  if (!always && steps === lastSteps) return;
  lastSteps = steps;
  post({
    type: "status",
    link: client.state,
    tree: client.info?.tree,
    exactness: client.info?.exactness,
    stats,
    counters: client.counters,
    garbage: garbage.figures,
    floorRefused,
  });
}

const timer = setInterval(() => report(false), input.statusMs);

port.on("message", (message: MainMessage) => {
  if (message.type === "retry") return client.retryNow();
  if (message.type === "purge") {
    void purge(message);
    return;
  }
  if (message.type === "watch") {
    watch.on = message.on;
    return;
  }
  if (message.type === "floor") {
    floor = message.floor;
    const { drafter, info } = client;
    if (drafter === undefined || info === undefined) return;
    if (floor === undefined) drafter.useFloor?.(undefined);
    else useFloor(drafter, info);
    report(true);
    return;
  }
  clearInterval(timer);
  clearTimeout(rest);
  garbage.stop();
  client.stop();
  report(true);
  void Promise.all([keeper?.stop(), recording?.close()]).then(() => port.close());
});

/** What was forgotten must not come back from the disk: the answer waits for a snapshot without it. */
async function purge(message: PurgeMessage): Promise<void> {
  const found = client.drafter?.purge?.(message.scope) ?? false;
  if (found) await keeper?.save(true);
  post({ type: "purged", purge: message.purge, found });
}

client.start();

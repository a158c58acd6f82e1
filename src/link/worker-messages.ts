/** What the main thread and the drafter's worker tell each other. Plain data only: it is cloned between threads. */
import type { DrafterStats } from "../drafter/draft.ts";
import type { DrafterOptions } from "../drafter/options.ts";
import type { LinkCounters, LinkState } from "./client.ts";

export interface WorkerInput {
  socketPath: string;
  topK: number;
  /** URL of a module that exports a Drafter class named AdedDrafter. */
  drafterModule: string;
  drafterOptions: DrafterOptions;
  draftLatency: SharedArrayBuffer;
  linkLatency: SharedArrayBuffer;
  /** Time between status messages, ms. */
  statusMs: number;
}

export type LogLevel = "debug" | "info" | "warn" | "error";

export interface StatusMessage {
  type: "status";
  link: LinkState;
  /** Undefined until the first hello. */
  tree?: boolean;
  stats?: DrafterStats;
  counters: LinkCounters;
}

export interface LogMessage {
  type: "log";
  level: LogLevel;
  fields: object;
  message: string;
}

/** Worker → main. */
export type WorkerMessage = StatusMessage | LogMessage;

/** Main → worker: end the connection and exit. */
export interface StopMessage {
  type: "stop";
}

/** Main → worker: the engine listens now, don't wait for the next attempt. */
export interface RetryMessage {
  type: "retry";
}

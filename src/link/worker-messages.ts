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
  /** What the corpora taught, if they are read already. */
  floor?: FloorData;
}

export interface FloorData {
  /** For `FloorTable`. */
  buffer: SharedArrayBuffer;
  vocabHash: string;
  /** Names of the corpora. */
  files: string[];
}

export type LogLevel = "debug" | "info" | "warn" | "error";

export interface StatusMessage {
  type: "status";
  link: LinkState;
  /** Undefined until the first hello. */
  tree?: boolean;
  stats?: DrafterStats;
  counters: LinkCounters;
  /** Why the drafter does not use the floor that it was given. */
  floorRefused?: { reason: string; hint: string };
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

/** Main → worker: the corpora are read; without a floor: they can't be used. */
export interface FloorMessage {
  type: "floor";
  floor?: FloorData;
}

export type MainMessage = StopMessage | RetryMessage | FloorMessage;

/** What the main thread and the drafter's worker tell each other. Plain data only: it is cloned between threads. */
import type { DrafterStats } from "../drafter/draft.ts";
import type { DrafterOptions } from "../drafter/options.ts";
import type { LinkCounters, LinkState } from "./client.ts";
import type { WatchedStep } from "./watch.ts";

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

/** What one step verified, while somebody looks. */
export interface StepsMessage {
  type: "steps";
  steps: WatchedStep[];
}

/** Worker → main. */
export type WorkerMessage = StatusMessage | LogMessage | StepsMessage;

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

/** Main → worker: tell each step, or no longer. */
export interface WatchMessage {
  type: "watch";
  on: boolean;
}

export type MainMessage = WatchMessage | StopMessage | RetryMessage | FloorMessage;

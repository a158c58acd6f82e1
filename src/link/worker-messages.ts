/** What the main thread and the drafter's worker tell each other. Plain data only: it is cloned between threads. */
import type { DrafterStats, Exactness } from "../drafter/draft.ts";
import type { DrafterOptions } from "../drafter/options.ts";
import type { GarbageFigures } from "../engine/engine.ts";
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
  exchangeLatency: SharedArrayBuffer;
  /** Time between status messages, ms. */
  statusMs: number;
  /** What the corpora taught, if they are read already. */
  floor?: FloorData;
  /** Where what is learnt is kept, and how often it is written; none: it ends with the worker. */
  snapshots?: { base: string; everyMs: number };
  /** File that what the drafter is told is appended to. */
  record?: string;
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
  exactness?: Exactness;
  stats?: DrafterStats;
  counters: LinkCounters;
  garbage: GarbageFigures;
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

/** Answer to a purge, once it is on disk, too. */
export interface PurgedMessage {
  type: "purged";
  purge: number;
  /** False: there was no such scope. */
  found: boolean;
}

/** Worker → main. */
export type WorkerMessage = StatusMessage | LogMessage | StepsMessage | PurgedMessage;

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

/** Main → worker: forget what a scope learnt. */
export interface PurgeMessage {
  type: "purge";
  /** Comes back in the answer. */
  purge: number;
  scope: string;
}

export type MainMessage = PurgeMessage | WatchMessage | StopMessage | RetryMessage | FloorMessage;

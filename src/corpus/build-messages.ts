/** What the reading thread and the counting workers tell each other. Plain data only: it is cloned or moved between threads. */
import type { ChatMarkers } from "./chat-markers.ts";
import type { FormatOptions, Role } from "./formats.ts";

export interface CountInput {
  modelPath: string;
  format: FormatOptions;
  /** Only turns of this role; undefined: all. */
  role?: Role;
  /** undefined: turns are texts of their own. */
  markers?: ChatMarkers;
  /** Folder for the parts. */
  folder: string;
  /** Number of this worker, unique in the folder. */
  worker: number;
  /** log2 of the slots of its table. */
  slotsLog2: number;
  /** One int32 that all workers look at: not 0 when what is left need not be counted. */
  stop: SharedArrayBuffer;
}

/** Records of one input, back to back. */
export interface CountBatch {
  type: "batch";
  /** Number of the input. */
  input: number;
  /** False: the records are plain texts, not JSON. */
  json: boolean;
  bytes: Uint8Array;
  /** Where each record ends. */
  ends: Int32Array;
  /** Line on which each begins. */
  lines: Int32Array;
}

export interface Finish {
  type: "finish";
}

/** After it was written into the shared `stop`: end. */
export interface Stop {
  type: "stop";
}

export interface RecordProblem {
  line: number;
  message: string;
}

export interface BatchDone {
  type: "done";
  input: number;
  documents: number;
  tokens: number;
  /** Records left out by the language filter. */
  filtered: number;
  faults: RecordProblem[];
}

export interface PartDone {
  type: "part";
  file: string;
  rows: number;
}

export interface Finished {
  type: "finished";
  /** 3-grams counted by this worker. */
  grams: number;
  /** Checksum of what it counted. */
  checksum: number;
}

export interface CountFailed {
  type: "failed";
  /** Code and hint of the AdedError, if it was one. */
  code?: string;
  message: string;
  hint?: string;
}

export type ToWorker = CountBatch | Finish | Stop;
export type FromWorker = BatchDone | PartDone | Finished | CountFailed | { type: "ready" };

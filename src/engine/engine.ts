/**
 * What the rest of the program knows of an engine: where it listens, how it fares. Implemented by the supervised child
 * process (process.ts) and by an engine that runs elsewhere (remote.ts).
 */
import type { EventEmitter } from "node:events";
import type { Log } from "../log.ts";

export type EngineState = "starting" | "ready" | "restarting" | "stopping" | "stopped" | "failed";

/** Where to send HTTP requests: an origin such as http://127.0.0.1:8081, or a Unix socket. */
export interface EngineAddress {
  origin: string;
  socketPath?: string;
}

export interface EngineSnapshot {
  model: string;
  state: EngineState;
  pid?: number;
  /** How often it was started again after it died. */
  restarts: number;
  /** Why it is not ready, in one sentence, if known. */
  reason?: string;
  /** "patched": drafts are possible; "stock": everything works but drafts. Unknown until ready. */
  kind?: "patched" | "stock";
}

export interface EngineEvents {
  /** After every change of state. */
  state: [snapshot: EngineSnapshot];
}

export interface Engine extends EventEmitter<EngineEvents> {
  readonly model: string;
  readonly address: EngineAddress;
  /** Path of the draft link's Unix socket; undefined when the engine has none. */
  readonly draftSocket?: string;
  /** `Authorization` for requests of those whom the proxy itself has let in; undefined: it wants none. */
  readonly authorization?: string;
  /**
   * Awaited whenever the engine answers and before it counts as ready: at the start and after each restart. What it waits for it must
   * bound itself; that it fails is logged and keeps nothing from being served.
   */
  beforeReady?: (signal: AbortSignal) => Promise<void>;
  snapshot(): EngineSnapshot;
  /** Starts it; resolves when it is ready, rejects with AdedError ADED_ENGINE_START. */
  start(): Promise<void>;
  /** Stops it: SIGTERM, then SIGKILL after `graceMs`. Resolves when it is gone. */
  stop(graceMs?: number): Promise<void>;
}

/** Runs an engine's `beforeReady`. Never throws. */
export async function awaitGate(engine: Engine, signal: AbortSignal, log: Log): Promise<void> {
  try {
    await engine.beforeReady?.(signal);
  } catch (error) {
    if (!signal.aborted) log.warn({ err: error }, "the engine is served without what it was to wait for");
  }
}

/** How the corpora of a model fare. */
export interface CorporaSnapshot {
  /** "failed": they can't be read; "refused": they are of another vocabulary. */
  state: "reading" | "used" | "failed" | "refused";
  /** Why they are not used. */
  reason?: string;
  files: string[];
  /** Pairs (and single tokens) whose successors are known. */
  rows: number;
  /** Rows of the rarest pairs that the memory bound left no room for. */
  rows_left_out: number;
  bytes: number;
  /** What reading took. */
  seconds: number | null;
}

/** What a drafter reports of itself, merged into /aded/status by the proxy. Null: nothing was measured yet. */
export interface DraftingSnapshot {
  link: "connected" | "connecting" | "off";
  tree?: boolean;
  steps: number;
  tokens: number;
  tokens_per_step: number | null;
  /** Step received to draft ready to be written, and the part of it that is the link. */
  draft_us: { p50: number | null; p99: number | null };
  link_us: { p50: number | null; p99: number | null };
  /** What link and drafting together added to a step, as the engine measures it. */
  exchange_us: { p50: number | null; p99: number | null };
  cost_us: Record<string, number>;
  /**
   * Batches that the engine compared with one-by-one decoding at its start, those whose logits are the same to the last bit, and the margin
   * below which logits are not decided by a batch (0: the rule is off).
   */
  exactness?: { tested: number[]; exact: number[]; near_tie: number };
  matrix: { rows: number; bytes: number; limit: number };
  controller: { asleep: number; nodes: number };
  /** Draft nodes verified and accepted since the start; index 0 of `by_depth` is depth 1. */
  acceptance?: {
    by_depth: { drafted: number[]; accepted: number[] };
    by_source: Record<string, { drafted: number; accepted: number }>;
  };
  /** Undefined: the model has none. */
  corpora?: CorporaSnapshot;
  drafted_nodes?: number;
  accepted_nodes?: number;
  /** Drafts that came too late for the engine. */
  late?: number;
  /** Drafts that the engine refused. */
  refused?: number;
  /** How often the drafter's thread was started again after it died. */
  restarts?: number;
  gc?: GarbageFigures;
}

export interface GarbagePauses {
  /** Garbage collections of the drafter's thread since it met the engine, what all of them took, and the longest, ms. */
  pauses: number;
  total_ms: number;
  longest_ms: number;
}

/** Those that V8 thought necessary, which a request may have waited for, and those asked for between requests. */
export interface GarbageFigures extends GarbagePauses {
  at_rest: GarbagePauses;
}

/** One measured request: what an A/B run collects and its report is made from. */
import type { Arm, ChatResult } from "./chat-client.ts";

/** Times in ms. What a server without `timings` does not tell is null. */
export interface AbSample {
  id: string;
  category: string;
  /** Samples of one group (the turns of a conversation) are one unit of the bootstrap. @default the id */
  group?: string;
  /** From 0. */
  repeat: number;
  arm: Arm;
  /** True: this arm was the first of its pair. */
  first: boolean;
  /** When it was sent, since the run began. */
  at_ms?: number;
  /** Why the request failed; null when it did not. */
  error: string | null;
  seed: number;
  arm_header: string | null;
  finish_reason: string | null;
  text: string;
  /** Whose clock `decode_ms` comes from. */
  clock: "engine" | "client";
  prompt_n: number | null;
  prompt_ms: number | null;
  cache_n: number | null;
  /** Tokens generated; counted as stream events when the engine does not tell. */
  predicted_n: number;
  /** First token to last token, ms: the time of predicted_n - 1 tokens. */
  decode_ms: number | null;
  draft_n: number | null;
  draft_n_accepted: number | null;
  ttft_ms: number | null;
  /** Until the first reasoning text, and the first text of the answer itself. */
  ttfr_ms?: number | null;
  ttfa_ms?: number | null;
  tpot_ms: number | null;
  e2e_ms: number | null;
  /** Times between network chunks with text, and how many events each of them brought. */
  gaps_ms: number[];
  gap_events: number[];
}

export type Measured = Omit<
  AbSample,
  "id" | "category" | "group" | "repeat" | "arm" | "first" | "at_ms" | "seed"
>;

export const NOTHING_MEASURED: Measured = {
  error: null,
  arm_header: null,
  finish_reason: null,
  text: "",
  clock: "client",
  prompt_n: null,
  prompt_ms: null,
  cache_n: null,
  predicted_n: 0,
  decode_ms: null,
  draft_n: null,
  draft_n_accepted: null,
  ttft_ms: null,
  ttfr_ms: null,
  ttfa_ms: null,
  tpot_ms: null,
  e2e_ms: null,
  gaps_ms: [],
  gap_events: [],
};

/** @param clock "client": decode times of this side also where the engine tells its own */
export function measured(result: ChatResult, clock: "engine" | "client" = "engine"): Measured {
  const { timings } = result;
  const tokens = timings?.predicted_n ?? result.events;
  const own = clock === "client" || timings === null;
  return {
    error: null,
    arm_header: result.armHeader,
    finish_reason: result.finishReason,
    text: result.text,
    clock: own ? "client" : "engine",
    prompt_n: timings?.prompt_n ?? null,
    prompt_ms: timings?.prompt_ms ?? null,
    cache_n: timings?.cache_n ?? null,
    predicted_n: tokens,
    decode_ms: tokens < 2 ? null : own ? rounded(result.streamMs) : timings.predicted_ms,
    draft_n: timings?.draft_n ?? null,
    draft_n_accepted: timings?.draft_n_accepted ?? null,
    ttft_ms: rounded(result.ttftMs),
    ttfr_ms: rounded(result.reasoningMs),
    ttfa_ms: rounded(result.contentMs),
    tpot_ms: result.streamMs === null || tokens < 2 ? null : rounded(result.streamMs / (tokens - 1)),
    e2e_ms: rounded(result.e2eMs),
    gaps_ms: result.gapsMs.map((gap) => rounded(gap) as number),
    gap_events: result.gapEvents,
  };
}

/** To 1 µs. */
function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 1000) / 1000;
}

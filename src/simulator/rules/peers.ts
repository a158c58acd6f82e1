/** The rules of others by name, as `aded bench draft` compares them. */
import type { Trace } from "../trace.ts";
import { LogitSpec } from "./logit-spec.ts";
import { Paper } from "./paper.ts";
import { PromptLookup } from "./prompt-lookup.ts";
import { Racer } from "./racer.ts";
import type { Rule } from "./rule.ts";
import { SamDecoding } from "./sam.ts";
import { SuffixDecoding } from "./suffix-decoding.ts";
import { rankRates, TokenRecycling } from "./token-recycling.ts";

export interface Peer {
  /** As in tables. */
  name: string;
  /** A fresh rule that knows nothing yet. */
  create(): Rule;
}

/** @param traces that the rules will run on: Token Recycling's static tree is made for them */
export function peersFor(traces: readonly Trace[]): Peer[] {
  const rates = rankRates(traces);
  return [
    { name: "paper", create: () => new Paper() },
    { name: "prompt lookup", create: () => new PromptLookup() },
    { name: "Token Recycling", create: () => new TokenRecycling(rates) },
    { name: "SAM[TR]", create: () => new SamDecoding(rates) },
    { name: "SuffixDecoding", create: () => new SuffixDecoding() },
    { name: "LogitSpec", create: () => new LogitSpec() },
    { name: "RACER", create: () => new Racer() },
  ];
}

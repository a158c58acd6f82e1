/** The rules of others by name, as `aded bench draft` compares them, each with its published parameters and, where a paper tries several, all of them. */
import type { Trace } from "../trace.ts";
import { LogitSpec } from "./logit-spec.ts";
import { Paper } from "./paper.ts";
import { PromptLookup } from "./prompt-lookup.ts";
import { Racer } from "./racer.ts";
import type { Rule } from "./rule.ts";
import { SamDecoding } from "./sam.ts";
import { SuffixDecoding } from "./suffix-decoding.ts";
import { rankRates, TokenRecycling } from "./token-recycling.ts";

export interface PeerVariant {
  /** What is special about it; "" for a rule with a single variant. */
  label: string;
  /** A fresh rule that knows nothing yet. */
  create(): Rule;
}

export interface Peer {
  /** As in tables. */
  name: string;
  /** The best of them at each node budget counts. */
  variants: readonly PeerVariant[];
}

/** @param traces that the rules will run on: Token Recycling's static tree is made for them */
export function peersFor(traces: readonly Trace[]): Peer[] {
  const rates = rankRates(traces);
  const only = (create: () => Rule): PeerVariant[] => [{ label: "", create }];
  return [
    {
      name: "paper",
      variants: [
        { label: "counts", create: () => new Paper() },
        { label: "distributions", create: () => new Paper({ distributions: true }) },
      ],
    },
    { name: "prompt lookup", variants: only(() => new PromptLookup()) },
    { name: "Token Recycling", variants: only(() => new TokenRecycling(rates)) },
    { name: "SAM[TR]", variants: only(() => new SamDecoding(rates)) },
    {
      name: "SuffixDecoding",
      variants: [1, 2, 4].map((factor) => ({
        label: `factor ${factor}`,
        create: () => new SuffixDecoding({ factor }),
      })),
    },
    { name: "LogitSpec", variants: only(() => new LogitSpec()) },
    {
      name: "RACER",
      variants: [1, 0.5, 0.25].map((share) => ({
        label: `matches up to ${share * 100} %`,
        create: () => new Racer({ share }),
      })),
    },
  ];
}

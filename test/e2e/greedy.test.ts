/**
 * The engine finds the token of a greedy request without its samplers, which copy and sort the vocabulary. Where that is not
 * what they would choose, it must not. A request for log-probabilities always takes them.
 */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { type Completion, complete, visible } from "./support/generate.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

let stack: Stack;
beforeAll(async () => {
  stack = await startStack();
}, SETUP_MS);
afterAll(() => stack?.stop());

const ask = (options: Record<string, unknown>): Promise<Completion[]> =>
  Promise.all(
    TURNS.slice(0, 4).map((prompt) =>
      complete(stack.proxy, { prompt, n_predict: 48, temperature: 0, seed: 7, ...options }, "on"),
    ),
  );

type Case = [name: string, options: Record<string, unknown>];

const GREEDY: Case[] = [
  ["alone", {}],
  ["with top-k 1", { top_k: 1 }],
  ["with top-p and min-p", { top_p: 0.1, min_p: 0.9, top_n_sigma: 1 }],
  ["with dynamic temperature off", { dynatemp_range: 0, dynatemp_exponent: 2 }],
  ["with Mirostat", { mirostat: 2 }],
];

const OTHER: Case[] = [
  ["locally typical sampling", { typical_p: 0.2 }],
  ["XTC", { xtc_probability: 1, xtc_threshold: 0.05 }],
  ["a repetition penalty", { repeat_penalty: 1.4, repeat_last_n: 64 }],
  ["a presence penalty", { presence_penalty: 1.5 }],
  ["DRY", { dry_multiplier: 2, dry_allowed_length: 1, dry_base: 2 }],
  ["a token forbidden", { logit_bias: [[" the", false]] }],
  ["dynamic temperature", { dynatemp_range: 1.5 }],
  ["a grammar", { grammar: "root ::= [a-z ]{20,60}" }],
  ["no temperature among the samplers", { samplers: ["top_k", "top_p"], top_k: 20 }],
];

describe("a request of temperature 0", () => {
  let plain: Completion[];
  beforeAll(async () => {
    plain = await ask({});
  });

  it.each(GREEDY)("gets what the samplers choose: %s", async (_, options) => {
    const sampled = await ask({ ...options, n_probs: 1 });
    expect((await ask(options)).map(visible)).toEqual(sampled.map(visible));
    expect(sampled.map(visible)).toEqual(plain.map(visible));
  });

  it.each(OTHER)(
    "gets what the samplers choose where that is not the likeliest token: %s",
    async (_, options) => {
      const sampled = await ask({ ...options, n_probs: 1 });
      expect((await ask(options)).map(visible)).toEqual(sampled.map(visible));
      expect(sampled.map(visible)).not.toEqual(plain.map(visible));
    },
  );
});

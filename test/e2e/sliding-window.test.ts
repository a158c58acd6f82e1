/**
 * A model most of whose layers look back over a window only: Gemma 3 270M, 512 tokens. Where a text crosses the window's border, cells
 * fall out of the cache of those layers at every step, and the draft nodes' positions must not push out more than the accepted ones.
 */
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { EXACT } from "./support/exact.ts";
import { type Arm, type Completion, complete, visible } from "./support/generate.ts";
import { PROMPTS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const WINDOW = 512;
/**
 * Most that log-probabilities may differ; measured 1e-3. Also without any draft a token decoded alone and the same one at the end of its
 * prompt differ by so much: this model's numbers are larger than those of the default one.
 */
const NOISE = 0.005;
const TOKENS = 32;
/** Tokens of the prompt: the window ends in the middle of the answer. */
const LENGTH = WINDOW - TOKENS / 2;

let stack: Stack;
let prompt: number[];

beforeAll(async () => {
  stack = await startStack({
    ...EXACT,
    model: "gemma-3-270m",
    args: [...(EXACT.args ?? []), "-c", "2048", "-np", "2"],
  });
  const { tokens } = await stack.proxy.post<{ tokens: number[] }>("/tokenize", {
    content: [1, 5, 11, 17].map(strided).join("\n"),
    add_special: true,
  });
  prompt = tokens.slice(0, LENGTH);
}, SETUP_MS);
afterAll(() => stack?.stop());

/** The prompts' words, every `stride`-th of them round and round: long, but without repetitions that a model would just go on with. */
function strided(stride: number): string {
  const words = PROMPTS.join(" ").split(" ");
  return words.map((_, i) => words[(i * stride) % words.length]).join(" ");
}

const answer = (body: Record<string, unknown>, arm: Arm): Promise<Completion> =>
  complete(stack.proxy, { prompt, n_predict: TOKENS, ignore_eos: true, n_probs: 3, ...body }, arm);

/** Log-probabilities of the three likeliest tokens at each position. */
const probabilities = ({ completion_probabilities }: Completion): number[] =>
  (completion_probabilities ?? []).flatMap(
    ({ top_logprobs }) => top_logprobs?.map(({ logprob }) => logprob) ?? [],
  );

function expectSame(on: Completion, off: Completion): void {
  expect(prompt).toHaveLength(LENGTH);
  expect(visible(on)).toEqual(visible(off));
  expect(on.tokens).toHaveLength(TOKENS);
  expect(on.timings.draft_n_accepted).toBeGreaterThan(0);
  const [drafted, plain] = [probabilities(on), probabilities(off)];
  expect(plain).toHaveLength(3 * TOKENS);
  for (const [i, logprob] of drafted.entries()) {
    expect(Math.abs(logprob - plain[i])).toBeLessThan(NOISE);
  }
}

it("the text is the same across the window's border, greedy", async () => {
  const off = await answer({}, "off");
  expectSame(await answer({}, "on"), off);
});

it("a prompt longer than the window, sampled, the part before it from the cache", async () => {
  const sampling = { temperature: 0.8, top_k: 20, seed: 3, prompt: [...prompt, ...prompt.slice(1, TOKENS)] };
  const off = await answer(sampling, "off");
  const on = await answer({ ...sampling, cache_prompt: true }, "on");
  expectSame(on, off);
  expect(on.timings.cache_n).toBeGreaterThan(0);
});

/** The first promise: the text with drafts is the text that plain decoding would have produced. */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { EXACT } from "./support/exact.ts";
import { chat, firstDifference, type Generated, logprobNoise } from "./support/generate.ts";
import { batchNoise } from "./support/noise.ts";
import { PROMPTS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const TOKENS = 40;

async function bothArms(stack: Stack, content: string, options: Record<string, unknown>) {
  const off = await chat(stack.proxy, content, { max_tokens: TOKENS, ...options }, "off");
  const on = await chat(stack.proxy, content, { max_tokens: TOKENS, ...options }, "on");
  expect(off.drafted).toBeUndefined();
  expect(on.drafted).toBeGreaterThan(0);
  return { off, on };
}

const accepted = (answers: readonly Generated[]): number =>
  answers.reduce((sum, answer) => sum + (answer.accepted ?? 0), 0);

describe("with the batch-invariant kernels", () => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack(EXACT);
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("greedy answers are the same, token by token and log-probability by log-probability", async () => {
    const answers: Generated[] = [];
    let noise = 0;
    for (const prompt of PROMPTS) {
      const { off, on } = await bothArms(stack, prompt, { temperature: 0 });
      expect(on.ids).toEqual(off.ids);
      expect({ text: on.text, finish: on.finish }).toEqual({ text: off.text, finish: off.finish });
      noise = Math.max(noise, logprobNoise(off, on, off.ids.length));
      answers.push(on);
    }
    expect(noise).toBe(0);
    // a token in three came as a draft, at the least
    expect(accepted(answers)).toBeGreaterThan((PROMPTS.length * TOKENS) / 3);
  });

  const samplings = {
    "temperature 0.8 with top-k, top-p, min-p and penalties": {
      temperature: 0.8,
      top_k: 40,
      top_p: 0.95,
      min_p: 0.05,
      repeat_penalty: 1.1,
      presence_penalty: 0.2,
    },
    "temperature 0.2 and top-k 2": { temperature: 0.2, top_k: 2 },
    "XTC (draws twice per token), DRY and frequency penalty": {
      temperature: 1,
      xtc_probability: 0.5,
      xtc_threshold: 0.1,
      dry_multiplier: 0.8,
      frequency_penalty: 0.3,
    },
    "mirostat (carries a state from token to token)": { temperature: 0.7, mirostat: 2, mirostat_tau: 4 },
    "dynamic temperature, typical-p and top-n-sigma": {
      temperature: 0.9,
      dynatemp_range: 0.4,
      typical_p: 0.9,
      top_n_sigma: 1.5,
    },
  };
  it.each(Object.entries(samplings))("sampled answers are the same: %s", async (_name, sampling) => {
    const answers: Generated[] = [];
    for (const [seed, prompt] of PROMPTS.slice(0, 4).entries()) {
      const { off, on } = await bothArms(stack, prompt, { ...sampling, seed: 100 + seed });
      expect(on.ids).toEqual(off.ids);
      answers.push(on);
    }
    expect(accepted(answers)).toBeGreaterThan(0);
  });

  it("an answer that is given back as a prompt, and so evaluated at once, gives the same log-probabilities", async () => {
    for (const content of PROMPTS.slice(0, 2)) {
      const answer = await chat(stack.proxy, content, { temperature: 0, max_tokens: TOKENS }, "off");
      const positions = [5, 15, 25, 35].filter((at) => at < answer.ids.length);
      expect(positions).not.toHaveLength(0);
      expect(await batchNoise(stack.proxy, { content, answer, positions })).toBe(0);
    }
  });

  it("another seed gives another text: the comparison can tell", async () => {
    const sampling = { temperature: 1, max_tokens: TOKENS };
    const one = await chat(stack.proxy, PROMPTS[0], { ...sampling, seed: 1 }, "on");
    const two = await chat(stack.proxy, PROMPTS[0], { ...sampling, seed: 2 }, "on");
    expect(one.ids).not.toEqual(two.ids);
  });
});

describe("with kernels whose results depend on the batch", () => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack({ args: ["--no-batch-invariant", "--draft-near-tie", "off"] });
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("greedy answers are the same up to a near-tie, closer than a batch's noise without drafts", async () => {
    const pairs: { off: Generated; on: Generated }[] = [];
    let noise = 0;
    for (const content of PROMPTS) {
      const pair = await bothArms(stack, content, { temperature: 0 });
      pairs.push(pair);
      const positions = [5, 15, 25, 35].filter((at) => at < pair.off.ids.length);
      noise = Math.max(noise, await batchNoise(stack.proxy, { content, answer: pair.off, positions }));
    }
    for (const { off, on } of pairs) {
      const at = firstDifference(off.ids, on.ids);
      if (at === off.ids.length && at === on.ids.length) continue;
      // each of the two may be off by the noise
      expect(margin(off, at, on.ids[at])).toBeLessThan(2 * noise);
      expect(margin(on, at, off.ids[at])).toBeLessThan(2 * noise);
    }
    expect(accepted(pairs.map(({ on }) => on))).toBeGreaterThan((PROMPTS.length * TOKENS) / 4);
  });
});

/** How much likelier the token chosen at `at` was than `other`, nats. */
function margin(answer: Generated, at: number, other: number): number {
  const logprob = answer.top[at].find(({ id }) => id === other)?.logprob ?? Number.NEGATIVE_INFINITY;
  return answer.logprobs[at] - logprob;
}

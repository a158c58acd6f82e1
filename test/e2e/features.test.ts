/** Whatever a request may ask for works with drafts as without. The settings are such that texts can be demanded to be equal. */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { Endpoint, StreamEvent } from "./support/endpoint.ts";
import { EXACT } from "./support/exact.ts";
import {
  type Arm,
  type ChatAnswer,
  type Completion,
  chat,
  complete,
  logprobNoise,
  visible,
} from "./support/generate.ts";
import { PROMPTS } from "./support/prompts.ts";
import { untilIdle } from "./support/slots.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const ARMS = ["off", "on"] as const;
const STORY =
  "The fox and the hen were friends. The fox and the dog were not. Every morning the fox went to the hen and said:";

let stack: Stack;

/** Both arms' answers to the same completion; drafts were used in one of them only. */
async function both(body: Record<string, unknown>): Promise<{ off: Completion; on: Completion }> {
  const off = await complete(stack.proxy, body, "off");
  const on = await complete(stack.proxy, body, "on");
  expect(off.timings.draft_n).toBeUndefined();
  return { off, on };
}

async function expectSame(body: Record<string, unknown>): Promise<{ off: Completion; on: Completion }> {
  const answers = await both(body);
  expect(visible(answers.on)).toEqual(visible(answers.off));
  return answers;
}

function ask(content: string, options: Record<string, unknown>, arm: Arm): Promise<ChatAnswer> {
  const messages = [{ role: "user", content }];
  const body = { messages, max_tokens: 32, temperature: 0, cache_prompt: false, ...options };
  return stack.proxy.post<ChatAnswer>("/v1/chat/completions", body, { "x-aded": arm });
}

async function collect(events: AsyncGenerator<StreamEvent>): Promise<StreamEvent[]> {
  const all: StreamEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

/** Texts of a streamed chat, and the last event. */
async function streamed(endpoint: Endpoint, body: Record<string, unknown>, arm: Arm) {
  const { status, events } = await endpoint.stream(
    "/v1/chat/completions",
    { ...body, stream: true },
    { "x-aded": arm },
  );
  const all = await collect(events);
  expect({ status, all }).toMatchObject({ status: 200 });
  const values = all.filter(({ field }) => field === "data").map(({ value }) => value);
  const chunks = values.slice(0, -1).map(
    (value) =>
      JSON.parse(value) as {
        choices: { index: number; delta: { content?: string | null }; finish_reason: string | null }[];
      },
  );
  const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("");
  const finish = chunks
    .flatMap(({ choices }) => choices.map((choice) => choice.finish_reason))
    .findLast(Boolean);
  return { text, finish, last: values.at(-1) };
}

describe("with four slots", () => {
  beforeAll(async () => {
    stack = await startStack(EXACT);
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("a grammar holds", async () => {
    const grammar = 'root ::= ("- " [a-z ]{3,18} "\\n"){4}';
    const { on } = await expectSame({ prompt: `${PROMPTS[4]}\n`, grammar, n_predict: 48 });
    expect(on.content).toMatch(/^(- [a-z ]{3,18}\n)+(- [a-z ]*)?$/);
    expect(on.timings.draft_n_accepted).toBeGreaterThan(0);
  });

  it("a grammar and a seed together hold", async () => {
    const grammar = 'root ::= [0-9]{3} ("-" [0-9]{2,4}){6}';
    const { on } = await expectSame({
      prompt: "Call me: ",
      grammar,
      n_predict: 48,
      temperature: 1.2,
      seed: 5,
    });
    expect(on.content).toMatch(/^\d{3}(-\d{2,4}){6}$/);
  });

  it("a JSON schema holds", async () => {
    const schema = {
      type: "object",
      properties: {
        names: { type: "array", items: { type: "string" }, minItems: 2, maxItems: 3 },
        count: { type: "integer" },
      },
      required: ["names", "count"],
      additionalProperties: false,
    };
    const options = {
      max_tokens: 100,
      response_format: { type: "json_schema", json_schema: { name: "people", schema, strict: true } },
    };
    const [off, on] = [await ask(PROMPTS[5], options, "off"), await ask(PROMPTS[5], options, "on")];
    const { content } = on.choices[0].message;
    expect(content).toBe(off.choices[0].message.content);
    expect(on.choices[0].finish_reason).toBe("stop");
    expect(Object.keys(JSON.parse(content) as object).sort()).toEqual(["count", "names"]);
  });

  it("logprobs of a chat are those of plain decoding, at every token", async () => {
    const options = { max_tokens: 48, temperature: 0.8, seed: 11 };
    const off = await chat(stack.proxy, PROMPTS[3], options, "off");
    const on = await chat(stack.proxy, PROMPTS[3], options, "on");
    expect(on.ids).toEqual(off.ids);
    expect(on.ids.length).toBeGreaterThan(20);
    expect(on.accepted).toBeGreaterThan(0);
    expect(logprobNoise(off, on, off.ids.length)).toBe(0);
    for (const [i, logprob] of on.logprobs.entries()) {
      expect(Math.abs(logprob - off.logprobs[i])).toBe(0);
    }
  });

  it("n_probs of a completion are those of plain decoding, at every token", async () => {
    const { off, on } = await expectSame({ prompt: STORY, n_probs: 4 });
    const [plain, drafted] = [off, on].map(({ completion_probabilities = [] }) => completion_probabilities);
    expect(drafted.map(({ id }) => id)).toEqual(on.tokens);
    expect(on.timings.draft_n_accepted).toBeGreaterThan(0);
    for (const [i, { logprob = 1, top_logprobs = [] }] of drafted.entries()) {
      expect(top_logprobs).toHaveLength(4);
      expect(Math.abs(logprob - (plain[i].logprob ?? 0))).toBe(0);
      for (const [rank, top] of top_logprobs.entries()) {
        const same = plain[i].top_logprobs?.[rank].logprob ?? 0;
        expect(Math.abs(top.logprob - same)).toBe(0);
      }
    }
  });

  it("probabilities after sampling are those of plain decoding, at every token", async () => {
    const sampling = { temperature: 0.8, seed: 3, top_k: 20, repeat_penalty: 1.2 };
    const { off, on } = await expectSame({
      prompt: STORY,
      n_probs: 4,
      post_sampling_probs: true,
      ...sampling,
    });
    const [plain, drafted] = [off, on].map(({ completion_probabilities = [] }) => completion_probabilities);
    expect(drafted.map(({ id }) => id)).toEqual(on.tokens);
    for (const [i, { prob = -1, top_probs = [] }] of drafted.entries()) {
      expect(Math.abs(prob - (plain[i].prob ?? 2))).toBe(0);
      expect(top_probs.map(({ prob: p }) => p.toFixed(2))).toEqual(
        plain[i].top_probs?.map(({ prob: p }) => p.toFixed(2)),
      );
    }
  });

  it("stop strings end the text where they do without drafts, also those that span tokens", async () => {
    const whole = await complete(stack.proxy, { prompt: STORY, n_predict: 32 }, "off");
    // from the middle of a word to the middle of the next one but one
    const words = whole.content.split(" ");
    const across = `${words[4].slice(-2)} ${words[5]} ${words[6].slice(0, 1)}`;
    for (const stop of [[across], [words[3], "hen"], ["\n"], ["no such words", across]]) {
      const { on } = await expectSame({ prompt: STORY, n_predict: 32, stop });
      if (stop.includes(across)) expect(on.stop_type).toBe("word");
      if (on.stop_type === "word") expect(on.content).not.toContain(on.stopping_word);
    }
  });

  it("n_predict ends the text exactly there", async () => {
    for (const n_predict of [1, 2, 3, 7]) {
      const { on } = await expectSame({ prompt: STORY, n_predict });
      expect(on.tokens).toHaveLength(n_predict);
      expect(on.stop_type).toBe("limit");
      expect(on.timings.predicted_n).toBe(n_predict);
    }
  });

  it("the end-of-text token ends the text, ignore_eos does not", async () => {
    const prompt = "<|im_start|>user\nSay just: Hello!<|im_end|>\n<|im_start|>assistant\n";
    const { on } = await expectSame({ prompt, n_predict: 64 });
    expect(on.stop_type).toBe("eos");
    const more = await expectSame({ prompt, n_predict: 64, ignore_eos: true });
    expect(more.on.stop_type).toBe("limit");
    expect(more.on.tokens).toHaveLength(64);
  });

  it("n = 2 gives two answers, each as without drafts", async () => {
    const options = { n: 2, temperature: 0.9, seed: 21 };
    const [off, on] = [await ask(PROMPTS[1], options, "off"), await ask(PROMPTS[1], options, "on")];
    const texts = ({ choices }: ChatAnswer): string[] =>
      choices.toSorted((a, b) => a.index - b.index).map(({ message }) => message.content);
    expect(texts(on)).toHaveLength(2);
    expect(texts(on)).toEqual(texts(off));
    expect(new Set(texts(on)).size).toBe(2);
  });

  it("n = 2 streamed gives the same two answers", async () => {
    const sampling = { n: 2, temperature: 0.9, seed: 21 };
    const whole = await ask(PROMPTS[1], sampling, "off");
    const messages = [{ role: "user", content: PROMPTS[1] }];
    const body = { messages, max_tokens: 32, cache_prompt: false, stream: true, ...sampling };
    const { events } = await stack.proxy.stream("/v1/chat/completions", body, { "x-aded": "on" });
    const texts = ["", ""];
    for await (const { value } of events) {
      if (value === "[DONE]") break;
      const { choices } = JSON.parse(value) as { choices: { index: number; delta: { content?: string } }[] };
      for (const { index, delta } of choices) texts[index] += delta.content ?? "";
    }
    expect(texts).toEqual(
      whole.choices.toSorted((a, b) => a.index - b.index).map(({ message }) => message.content),
    );
  });

  it("a stream carries the text that comes in one piece without streaming", async () => {
    for (const sampling of [{ temperature: 0 }, { temperature: 0.8, seed: 4 }]) {
      const body = {
        messages: [{ role: "user", content: PROMPTS[4] }],
        max_tokens: 32,
        cache_prompt: false,
        ...sampling,
      };
      const whole = await ask(PROMPTS[4], sampling, "off");
      for (const arm of ARMS) {
        const { text, finish, last } = await streamed(stack.proxy, body, arm);
        expect(text).toBe(whole.choices[0].message.content);
        expect(finish).toBe(whole.choices[0].finish_reason);
        expect(last).toBe("[DONE]");
      }
    }
  });

  it.each([
    ["/v1/completions", { prompt: STORY, max_tokens: 24 }],
    ["/v1/responses", { input: PROMPTS[0], max_output_tokens: 24 }],
    ["/v1/messages", { messages: [{ role: "user", content: PROMPTS[0] }], max_tokens: 24 }],
    ["/completions", { prompt: STORY, n_predict: 24 }],
  ])("%s answers as without drafts", async (path, body) => {
    const texts: string[] = [];
    for (const arm of ARMS) {
      const asked = { ...body, model: stack.model, temperature: 0, cache_prompt: false };
      const answer = await stack.proxy.post<Record<string, unknown>>(path, asked, { "x-aded": arm });
      texts.push(textOf(answer));
    }
    expect(texts[0].length).toBeGreaterThan(20);
    expect(texts[1]).toBe(texts[0]);
  });

  it("a request broken off frees its slot, and what follows is as without drafts", async () => {
    const before = await complete(stack.proxy, { prompt: STORY }, "off");
    const { events, abort } = await stack.proxy.stream(
      "/completion",
      { prompt: STORY, n_predict: 2000, ignore_eos: true, temperature: 0, stream: true },
      { "x-aded": "on" },
    );
    for (let i = 0; i < 3; i++) await events.next();
    abort();
    await untilIdle(stack.direct);
    const after = await complete(stack.proxy, { prompt: STORY, cache_prompt: true }, "on");
    expect(after.tokens).toEqual(before.tokens);
  });

  it("a conversation goes on from the cached prompt", async () => {
    const question = { role: "user", content: PROMPTS[3] };
    const continued: { text: string; cached: number }[] = [];
    for (const [id_slot, arm] of ARMS.entries()) {
      const options = { cache_prompt: true, id_slot };
      const first = await ask("", { ...options, messages: [question] }, arm);
      const { content } = first.choices[0].message;
      const messages = [
        question,
        { role: "assistant", content },
        { role: "user", content: "Shorter, please." },
      ];
      const second = await ask("", { ...options, messages }, arm);
      const { cache_n } = second.timings as Completion["timings"];
      continued.push({ text: second.choices[0].message.content, cached: cache_n });
    }
    expect(continued[1]).toEqual(continued[0]);
    expect(continued[1].cached).toBeGreaterThan(32);
  });

  it("a slot saved after accepted drafts goes on, restored, as if nothing had been", async () => {
    const whole = await complete(stack.proxy, { prompt: STORY, n_predict: 40 }, "off");
    const half = await complete(stack.proxy, { prompt: STORY, n_predict: 20, id_slot: 2 }, "on");
    expect(half.timings.draft_n_accepted).toBeGreaterThan(0);
    expect(half.tokens).toEqual(whole.tokens.slice(0, 20));
    const saved = await stack.proxy.post<{ n_saved: number }>("/slots/2?action=save", {
      filename: "half.bin",
    });
    // something else in between, with drafts, so that the slot holds another text
    await complete(stack.proxy, { prompt: PROMPTS[2], n_predict: 20, id_slot: 2 }, "on");
    const restored = await stack.proxy.post<{ n_restored: number }>("/slots/2?action=restore", {
      filename: "half.bin",
    });
    expect(restored.n_restored).toBe(saved.n_saved);
    const prompt = [...(await tokenize(STORY)), ...half.tokens];
    const rest = await complete(stack.proxy, { prompt, n_predict: 20, id_slot: 2, cache_prompt: true }, "on");
    expect(rest.timings.cache_n).toBeGreaterThan(20);
    expect([...half.tokens, ...rest.tokens]).toEqual(whole.tokens);
  });

  it("drafts are off for a request that says so, in a header or in its body", async () => {
    const drafted = await complete(stack.proxy, { prompt: STORY }, "on");
    expect(drafted.timings.draft_n).toBeGreaterThan(0);
    const byHeader = await complete(stack.proxy, { prompt: STORY }, "off");
    const byBody = await complete(stack.proxy, { prompt: STORY, "speculative.n_max": 0 }, "on");
    for (const plain of [byHeader, byBody]) {
      expect(plain.timings).not.toHaveProperty("draft_n");
      expect(plain.timings).not.toHaveProperty("draft_n_accepted");
      expect(plain.tokens).toEqual(drafted.tokens);
    }
  });
});

describe("with small batches", () => {
  beforeAll(async () => {
    stack = await startStack({ ...EXACT, args: [...(EXACT.args ?? []), "-b", "64", "-ub", "64"] });
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("a prompt broken off while it is evaluated leaves a slot that goes on from there", async () => {
    const prompt = PROMPTS.join(" ").repeat(8);
    const whole = await complete(stack.proxy, { prompt, id_slot: 0 }, "off");
    const beside = await complete(stack.proxy, { prompt: STORY, n_predict: 64, id_slot: 2 }, "off");

    // another slot drafts meanwhile
    const drafted = complete(stack.proxy, { prompt: STORY, n_predict: 64, id_slot: 2 }, "on");
    const { events, abort } = await stack.proxy.stream(
      "/completion",
      { prompt, n_predict: 32, id_slot: 1, cache_prompt: true, stream: true, return_progress: true },
      { "x-aded": "on" },
    );
    for (let i = 0; i < 3; i++) {
      expect(JSON.parse((await events.next()).value?.value ?? "{}")).toHaveProperty("prompt_progress");
    }
    abort();
    await untilIdle(stack.direct);
    expect(visible(await drafted)).toEqual(visible(beside));

    const again = await complete(stack.proxy, { prompt, id_slot: 1, cache_prompt: true }, "on");
    // a part of the prompt was there, and no more than that
    expect(again.timings.cache_n).toBeGreaterThanOrEqual(64);
    expect(again.timings.prompt_n).toBeGreaterThan(128);
    expect(visible(again)).toEqual(visible(whole));
    expect(again.timings.draft_n_accepted).toBeGreaterThan(0);
  });
});

describe("with one small slot", () => {
  /** Some 200 tokens: near the end of a context of 256. */
  const LONG = `${STORY} "Good morning, hen. I am the fox, and I am hungry." `.repeat(4);
  const small = (...more: string[]) => ({
    ...EXACT,
    args: [...(EXACT.args ?? []), "-c", "256", "-np", "1", ...more],
  });
  afterAll(() => stack?.stop());

  it(
    "the context shifts as without drafts",
    async () => {
      stack = await startStack(small("--context-shift"));
      const { on } = await expectSame({ prompt: LONG, n_predict: 180, n_keep: 8, ignore_eos: true });
      expect(on.truncated).toBe(true);
      expect(on.tokens).toHaveLength(180);
      expect(on.timings.draft_n_accepted).toBeGreaterThan(0);
      await stack.stop();
    },
    SETUP_MS,
  );

  it(
    "a full context ends the text as without drafts",
    async () => {
      stack = await startStack(small());
      const { on } = await expectSame({ prompt: LONG, n_predict: 180, ignore_eos: true });
      expect(on.tokens.length).toBeLessThan(180);
      expect(on.stop_type).toBe("limit");
      expect(on.tokens_evaluated + on.tokens.length).toBeGreaterThanOrEqual(255);
    },
    SETUP_MS,
  );

  it("prompts come back from the server's own cache after drafts of other prompts", async () => {
    const turn = (prompt: string) =>
      complete(stack.proxy, { prompt, n_predict: 24, cache_prompt: true }, "on");
    const first = await turn(STORY);
    const other = await turn(PROMPTS[0]);
    const again = await turn(STORY);
    const otherAgain = await turn(PROMPTS[0]);
    expect(again.timings.cache_n).toBeGreaterThan(20);
    expect([again.tokens, otherAgain.tokens]).toEqual([first.tokens, other.tokens]);
  });
});

async function tokenize(content: string): Promise<number[]> {
  const body = { content, add_special: true };
  return (await stack.proxy.post<{ tokens: number[] }>("/tokenize", body)).tokens;
}

/** The text of an answer of any of the generation routes. */
function textOf(answer: Record<string, unknown>): string {
  const { choices, content, output } = answer as {
    choices?: { text: string }[];
    content?: string | { text: string }[];
    output?: { content: { text: string }[] }[];
  };
  if (choices) return choices[0].text;
  if (typeof content === "string") return content;
  const parts = content ?? output?.flatMap((item) => item.content) ?? [];
  return parts.map(({ text }) => text).join("");
}

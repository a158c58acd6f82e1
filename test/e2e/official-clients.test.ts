/** The clients that people use, of npm, from OpenAI and Anthropic: through the proxy they get what they get from the engine itself. */
import Anthropic from "@anthropic-ai/sdk";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import OpenAI from "openai";
import { EXACT } from "./support/exact.ts";
import { untilIdle } from "./support/slots.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";
import { type Bridge, masked, openBridge } from "./support/ways.ts";

const QUESTION = [{ role: "user" as const, content: "Name three colours of the rainbow." }];
const PLAIN = { temperature: 0, seed: 1 };
const WEATHER = {
  type: "object" as const,
  properties: { city: { type: "string", enum: ["Paris", "Rome"] }, days: { type: "integer", enum: [1, 2] } },
  required: ["city", "days"],
  additionalProperties: false,
};
let stack: Stack;
let bridge: Bridge;
/** Through the proxy, and straight to the engine. */
let ways: Record<"proxy" | "engine", { openai: OpenAI; anthropic: Anthropic }>;

beforeAll(async () => {
  stack = await startStack(EXACT);
  bridge = await openBridge(stack);
  const clients = (url: string): { openai: OpenAI; anthropic: Anthropic } => ({
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 }),
    anthropic: new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 }),
  });
  ways = { proxy: clients(stack.url), engine: clients(bridge.url) };
}, SETUP_MS);

afterAll(async () => {
  bridge?.close();
  await stack?.stop();
});

/** Both ways, one after the other; they must agree. @returns what came through the proxy */
async function both<T>(ask: (way: { openai: OpenAI; anthropic: Anthropic }) => PromiseLike<T>): Promise<T> {
  const through = await ask(ways.proxy);
  const straight = await ask(ways.engine);
  expect(masked(through)).toEqual(masked(straight));
  return through;
}

async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const events: T[] = [];
  for await (const event of stream) events.push(event);
  return events;
}

/** Chunks of a stream come as the steps gave them: what counts is the text and the last of everything else. */
function joined(chunks: readonly OpenAI.ChatCompletionChunk[]): unknown {
  const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("");
  const finish = chunks.flatMap(({ choices }) => choices[0]?.finish_reason ?? []);
  return { text, finish, usage: masked(chunks.at(-1)?.usage), model: chunks[0].model };
}

describe("OpenAI's client", () => {
  it("lists the models", async () => {
    const models = await both(async ({ openai }) => (await openai.models.list()).data);
    expect(models).toHaveLength(1);
  });

  it("chats", async () => {
    const answer = await both(({ openai }) =>
      openai.chat.completions.create({ model: "test", messages: QUESTION, max_tokens: 24, ...PLAIN }),
    );
    expect(answer.choices[0].message.content?.length).toBeGreaterThan(10);
    expect(answer.usage?.completion_tokens).toBeGreaterThan(5);
  });

  it("streams", async () => {
    const seen = (await both(async ({ openai }) => {
      const stream = await openai.chat.completions.create({
        model: "test",
        messages: QUESTION,
        max_tokens: 24,
        stream: true,
        stream_options: { include_usage: true },
        ...PLAIN,
      });
      return joined(await all(stream));
    })) as { text: string; finish: string[] };
    expect(seen.text.length).toBeGreaterThan(10);
    expect(seen.finish).toHaveLength(1);
  });

  it("sends tools, a call and its result", async () => {
    // the model's template has no tools, so it calls none; what it says must come through all the same
    const answer = await both(({ openai }) =>
      openai.chat.completions.create({
        model: "test",
        messages: [
          { role: "user", content: "How is the weather in Paris?" },
          {
            role: "assistant",
            content: null,
            tool_calls: [
              {
                id: "call_1",
                type: "function",
                function: { name: "weather", arguments: '{"city":"Paris","days":1}' },
              },
            ],
          },
          { role: "tool", tool_call_id: "call_1", content: "sunny" },
        ],
        tools: [{ type: "function", function: { name: "weather", parameters: WEATHER } }],
        tool_choice: "auto",
        max_tokens: 24,
        ...PLAIN,
      }),
    );
    expect(["stop", "length", "tool_calls"]).toContain(answer.choices[0].finish_reason);
    expect(answer.usage?.completion_tokens).toBeGreaterThan(1);
  });

  it("gets an answer of a JSON schema", async () => {
    const answer = await both(({ openai }) =>
      openai.chat.completions.create({
        model: "test",
        messages: [{ role: "user", content: "A trip, as JSON." }],
        response_format: {
          type: "json_schema",
          json_schema: { name: "trip", schema: WEATHER, strict: true },
        },
        max_tokens: 100,
        ...PLAIN,
      }),
    );
    expect(JSON.parse(answer.choices[0].message.content ?? "")).toEqual({
      city: expect.stringMatching(/^(Paris|Rome)$/),
      days: expect.any(Number),
    });
  });

  it("uses the responses API", async () => {
    const answer = await both(({ openai }) =>
      openai.responses.create({ model: "test", input: "Say hello.", max_output_tokens: 16, temperature: 0 }),
    );
    expect(answer.output_text.length).toBeGreaterThan(0);
  });

  it("gets the engine's own error objects", async () => {
    const refused = await both(({ openai }) =>
      openai.chat.completions
        .create({ model: "test", messages: [], response_format: { type: "nonsense" } as never })
        .then(
          () => "answered",
          (error: InstanceType<typeof OpenAI.APIError>) => ({ status: error.status, error: error.error }),
        ),
    );
    expect(refused).toMatchObject({ status: expect.any(Number), error: { message: expect.any(String) } });
  });

  it("breaks a stream off, and the engine's slot is free", async () => {
    const aborted = new AbortController();
    const stream = await ways.proxy.openai.chat.completions.create(
      { model: "test", messages: QUESTION, max_tokens: 2000, stream: true, ...{ ignore_eos: true } },
      { signal: aborted.signal },
    );
    let seen = 0;
    for await (const _chunk of stream) if (++seen === 3) aborted.abort();
    expect(seen).toBeLessThan(2000);
    await untilIdle(stack.direct);
  });
});

describe("Anthropic's client", () => {
  const ask = { model: "test", max_tokens: 24, messages: QUESTION, temperature: 0 };

  it("gets a message", async () => {
    const message = await both(({ anthropic }) => anthropic.messages.create(ask));
    expect(message.content[0]).toMatchObject({ type: "text", text: expect.stringMatching(/.{10}/) });
    expect(message.usage.output_tokens).toBeGreaterThan(5);
  });

  it("streams one", async () => {
    const message = await both(({ anthropic }) => anthropic.messages.stream(ask).finalMessage());
    expect(message.content[0]).toMatchObject({ type: "text", text: expect.stringMatching(/.{10}/) });
    expect(message.stop_reason).toBe("max_tokens");
  });

  it("sends tools, a use and its result", async () => {
    const message = await both(({ anthropic }) =>
      anthropic.messages.create({
        ...ask,
        messages: [
          { role: "user", content: "How is the weather in Paris?" },
          {
            role: "assistant",
            content: [{ type: "tool_use", id: "use_1", name: "weather", input: { city: "Paris", days: 1 } }],
          },
          { role: "user", content: [{ type: "tool_result", tool_use_id: "use_1", content: "sunny" }] },
        ],
        tools: [{ name: "weather", input_schema: WEATHER }],
      }),
    );
    expect(["end_turn", "max_tokens", "tool_use"]).toContain(message.stop_reason);
    expect(message.usage.output_tokens).toBeGreaterThan(1);
  });

  it("counts tokens", async () => {
    const { input_tokens } = await both(({ anthropic }) =>
      anthropic.messages.countTokens({ model: "test", messages: QUESTION }),
    );
    expect(input_tokens).toBeGreaterThan(5);
  });

  it("breaks a stream off, and the engine's slot is free", async () => {
    const stream = ways.proxy.anthropic.messages.stream({
      ...ask,
      max_tokens: 2000,
      ...{ ignore_eos: true },
    });
    let seen = 0;
    stream.on("text", () => {
      if (++seen === 3) stream.abort();
    });
    await expect(stream.finalMessage()).rejects.toThrow(/abort/i);
    await untilIdle(stack.direct);
  });
});

/** The proxy in front of the real engine is not there for whoever does not ask for it. */
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { ProxyStatus } from "../../src/proxy/status.ts";
import type { Answer } from "./support/endpoint.ts";
import { complete } from "./support/generate.ts";
import { TURNS } from "./support/prompts.ts";
import { busySlots, untilIdle } from "./support/slots.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

let stack: Stack;
beforeAll(async () => {
  stack = await startStack();
}, SETUP_MS);
afterAll(() => stack?.stop());

/** Headers that belong to one connection only, or tell the time. */
const OWN_TO_CONNECTION = /^(connection|keep-alive|date|transfer-encoding)$/i;

function essence({ status, rawHeaders, body }: Answer) {
  const headers: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (!OWN_TO_CONNECTION.test(rawHeaders[i])) headers.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
  }
  return { status, headers, body: body.toString("latin1") };
}

describe("byte for byte what the engine says", () => {
  const text = JSON.stringify({
    content: "Grüße, 世界! \u0000 <|im_end|>",
    add_special: true,
    parse_special: true,
  });
  it.each([
    ["GET", "/props", undefined],
    ["GET", "/v1/models", undefined],
    ["GET", "/health", undefined],
    ["GET", "/slots", undefined],
    ["GET", "/lora-adapters", undefined],
    ["GET", "/no/such/path?a=1&b=%20#", undefined],
    ["POST", "/tokenize", text],
    ["POST", "/detokenize", '{"tokens":[1,2,3,49151]}'],
    ["POST", "/apply-template", '{"messages":[{"role":"user","content":"hi"}]}'],
    ["POST", "/tree-verify", '{"prompt":"a"}'],
    ["POST", "/tokenize", "{broken"],
    ["POST", "/completion", "{broken"],
    ["POST", "/v1/chat/completions", '{"messages":"none"}'],
    ["POST", "/v1/chat/completions", "{}"],
    ["OPTIONS", "/v1/chat/completions", undefined],
  ])("%s %s", async (method, path, body) => {
    const options = {
      body,
      headers: { ...(body && { "content-type": "application/json" }), origin: "http://localhost:3000" },
    };
    const direct = essence(await stack.direct.send(method, path, options));
    const through = essence(await stack.proxy.send(method, path, options));
    const headers = through.headers.filter((header) => !/^(x-aded-arm|x-request-id): /i.test(header));
    expect({ ...through, headers }).toEqual(direct);
  });
});

describe("a generation request", () => {
  const body = JSON.stringify({ messages: [{ role: "user", content: "hi" }], max_tokens: 4 });
  const send = (headers: Record<string, string>) =>
    stack.proxy.send("POST", "/v1/chat/completions", {
      body,
      headers: { "content-type": "application/json", ...headers },
    });

  it("is told its arm", async () => {
    expect((await send({})).headers["x-aded-arm"]).toBe("on");
    expect((await send({ "x-aded": "on" })).headers["x-aded-arm"]).toBe("on");
    expect((await send({ "x-aded": "off" })).headers["x-aded-arm"]).toBe("off");
  });

  it("is refused when its arm is neither on nor off", async () => {
    const answer = await send({ "x-aded": "maybe" });
    expect(answer.status).toBe(400);
    expect(JSON.parse(answer.body.toString())).toMatchObject({ error: { code: "invalid_x_aded" } });
  });

  it("has the tokens of a step in one chunk of its stream", async () => {
    const request = { prompt: TURNS[3], n_predict: 96, ignore_eos: true };
    const plain = await complete(stack.direct, request, "off");
    // warms the drafter: the steps after this have several tokens
    await complete(stack.direct, request, "on");

    const settings = { temperature: 0, cache_prompt: false, return_tokens: true, stream: true };
    const outgoing = stack.direct.begin("POST", "/completion", JSON.stringify({ ...request, ...settings }));
    const [response] = (await once(outgoing, "response")) as [IncomingMessage];
    const chunks: string[][] = [];
    for await (const chunk of response) {
      const text = (chunk as Buffer).toString();
      expect(text.endsWith("\n\n")).toBe(true);
      chunks.push(text.split("\n\n").slice(0, -1));
    }
    const events = chunks
      .flat()
      .map((event) => JSON.parse(event.slice("data: ".length)) as { tokens?: number[]; stop: boolean });
    expect(events.filter(({ stop }) => !stop).flatMap(({ tokens = [] }) => tokens)).toEqual(plain.tokens);
    expect(events.at(-1)?.stop).toBe(true);
    expect(chunks.length).toBeLessThan(0.8 * events.length);
  });

  it("of a client that leaves is broken off in the engine", async () => {
    const request = { prompt: TURNS[0], n_predict: 3000, ignore_eos: true };
    const cancelled = () => stack.engineLog().split("cancel task, id_task").length - 1;
    const before = cancelled();
    const streaming = await stack.proxy.stream("/completion", { ...request, stream: true });
    await streaming.events.next();
    expect(await busySlots(stack.direct)).toBe(1);
    streaming.abort();
    await untilIdle(stack.direct);
    // the engine's log is written by a thread of its own
    while (cancelled() < before + 1) await delay(10);
    expect(cancelled()).toBe(before + 1);

    const whole = stack.proxy.begin("POST", "/completion", JSON.stringify(request));
    while ((await busySlots(stack.direct)) === 0);
    whole.destroy();
    // asks for the slots all the time, so the engine has results for others meanwhile
    await untilIdle(stack.direct);
    while (cancelled() < before + 2) await delay(10);
    expect(cancelled()).toBe(before + 2);
    expect((await complete(stack.proxy, { prompt: TURNS[0], n_predict: 4 }, "on")).tokens).toHaveLength(4);
  });
});

describe("/aded/status", () => {
  it("tells of engine, link, drafts and their times", async () => {
    await complete(stack.proxy, { prompt: TURNS[3], n_predict: 64, ignore_eos: true }, "on");
    const before = await status();
    await complete(stack.proxy, { prompt: TURNS[3], n_predict: 64, ignore_eos: true }, "on");
    let after = await status();
    // the drafter reports a few times a second
    while (after.steps === before.steps) after = await status();
    expect(after).toMatchObject({
      state: "ready",
      engine_pid: stack.engine.snapshot().pid,
      kind: "patched",
      restarts: 0,
      link: "connected",
      tree: true,
      drafter_restarts: 0,
      refused: 0,
    });
    expect(after.tokens - before.tokens).toBeGreaterThanOrEqual(after.steps - before.steps);
    expect(after.tokens_per_step).toBeGreaterThan(1);
    for (const { p50, p99 } of [after.draft_us, after.link_us, after.exchange_us]) {
      expect(p50).toBeGreaterThan(0);
      expect(p99).toBeGreaterThanOrEqual(p50 ?? Number.POSITIVE_INFINITY);
    }
    expect(after.link_us.p50).toBeLessThanOrEqual(after.draft_us.p50 ?? 0);
    // how far the table goes depends on how fast the machine is: measuring it has a limit of time
    expect(Object.keys(after.cost_us)).toEqual(expect.arrayContaining(["1", "2", "3", "4"]));
    expect(after.cost_us["1"]).toBeGreaterThan(0);
    expect(after.matrix).toMatchObject({
      rows: expect.any(Number),
      bytes: expect.any(Number),
      limit: 256 * 2 ** 20,
    });
    expect(after.matrix?.rows).toBeGreaterThan(0);
    expect(after.controller).toMatchObject({ asleep: expect.any(Number), nodes: expect.any(Number) });
    expect(after.accepted_nodes).toBeGreaterThan(0);
    expect(after.drafted_nodes).toBeGreaterThan(after.accepted_nodes ?? Number.POSITIVE_INFINITY);
  });

  it("counts requests by arm", async () => {
    const { arms } = await whole();
    await complete(stack.proxy, { prompt: "a", n_predict: 1 }, "on");
    await complete(stack.proxy, { prompt: "a", n_predict: 1 }, "off");
    expect((await whole()).arms).toEqual({ on: arms.on + 1, off: arms.off + 1 });
  });

  it("has probes and metrics beside it", async () => {
    expect((await stack.proxy.send("GET", "/livez")).status).toBe(200);
    expect(await stack.proxy.get("/readyz")).toEqual({ status: "ok", models: { [stack.model]: "ready" } });
    const metrics = (await stack.proxy.send("GET", "/aded/metrics")).body.toString();
    expect(metrics).toContain(`aded_engine_up{model="${stack.model}"} 1`);
    expect(metrics).toContain(`aded_link_up{model="${stack.model}"} 1`);
  });

  const whole = () => stack.proxy.get<ProxyStatus>("/aded/status");
  const status = async () => (await whole()).models[stack.model];
});

it("many requests after one another all succeed, streamed or not: no connection is used that the engine closes", async () => {
  const request = { prompt: "a", n_predict: 2, cache_prompt: true };
  for (let i = 0; i < 40; i++) {
    const stream = i % 2 === 1;
    const answer = await stack.proxy.send("POST", "/completion", {
      body: JSON.stringify({ ...request, stream }),
    });
    expect(answer.status).toBe(200);
  }
});

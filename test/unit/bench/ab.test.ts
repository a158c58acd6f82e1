import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { type AbOptions, blockSize, runAb } from "../../../src/bench/ab.ts";
import { ChatClient } from "../../../src/bench/chat-client.ts";
import { FakeServer, timings } from "./support/fake-server.ts";
import { OPTIONS as ONCE } from "./support/reports.ts";

const PROMPTS = ["a", "b", "c", "d"].map((text) => ({ id: text, category: "x", text }));

const OPTIONS: AbOptions = { ...ONCE, prompts: PROMPTS };

describe("runAb", () => {
  let server: FakeServer;
  let client: ChatClient;

  beforeEach(async () => {
    server = new FakeServer();
    client = new ChatClient(`${await server.listen()}/v1/`, { apiKey: "secret", connections: 4 });
  });

  afterEach(async () => {
    await client.close();
    await server.close();
  });

  it("sends each prompt in both arms, next to each other, alike but for the header", async () => {
    const run = await runAb(client, { ...OPTIONS, repeat: 5, model: "toy" });
    expect(run.complete).toBe(true);
    expect(server.seen).toHaveLength(40);
    for (let i = 0; i < 40; i += 2) {
      const [first, second] = [server.seen[i], server.seen[i + 1]];
      expect([first.arm, second.arm].sort()).toEqual(["off", "on"]);
      expect(first.body).toEqual(second.body);
    }
    expect(server.seen[0].body).toEqual({
      model: "toy",
      messages: [{ role: "user", content: "a" }],
      max_tokens: 8,
      temperature: 0,
      seed: 1,
      stream: true,
      cache_prompt: false,
    });
    expect(server.seen[39].body.seed).toBe(5);
    expect(server.seen[0].headers.authorization).toBe("Bearer secret");
  });

  it("lets each arm come first equally often, in an order that the seed decides", async () => {
    const orderFor = async (seed: number): Promise<string> => {
      const run = await runAb(client, { ...OPTIONS, repeat: 8, seed });
      return run.samples
        .filter((sample) => sample.first)
        .map((sample) => sample.arm)
        .join(" ");
    };
    const order = await orderFor(1);
    expect(order.match(/on/g)).toHaveLength(16);
    expect(order.match(/off/g)).toHaveLength(16);
    expect(await orderFor(1)).toBe(order);
    expect(await orderFor(2)).not.toBe(order);
  });

  it("keeps the engine's figures, the header and the text of each request", async () => {
    server.answer = ({ arm }) => ({
      armHeader: arm,
      timings: timings(4, arm === "on" ? 10 : 30, arm === "on" ? { draft_n: 6, draft_n_accepted: 2 } : {}),
    });
    const { samples } = await runAb(client, { ...OPTIONS, prompts: PROMPTS.slice(0, 1) });
    const on = samples.find((sample) => sample.arm === "on");
    const off = samples.find((sample) => sample.arm === "off");
    expect(on).toMatchObject({
      id: "a",
      error: null,
      arm_header: "on",
      text: "Hello, world",
      finish_reason: "stop",
      clock: "engine",
      predicted_n: 4,
      decode_ms: 10,
      draft_n: 6,
      draft_n_accepted: 2,
      cache_n: 0,
      prompt_n: 5,
    });
    expect(off).toMatchObject({ arm_header: "off", decode_ms: 30, draft_n: 0, draft_n_accepted: 0 });
    expect(on?.ttft_ms).toBeGreaterThan(0);
    expect(on?.e2e_ms).toBeGreaterThanOrEqual(on?.ttft_ms ?? Number.NaN);
    expect(on?.gaps_ms).toHaveLength(on?.gap_events.length ?? -1);
  });

  it("takes its own clock where the server tells no timings, and nothing for a single token", async () => {
    server.answer = ({ prompt }) => ({ pieces: prompt === "a" ? ["one"] : ["one", "two"] });
    const { samples } = await runAb(client, { ...OPTIONS, prompts: PROMPTS.slice(0, 2) });
    const of = (id: string) => samples.find((sample) => sample.id === id);
    expect(of("a")).toMatchObject({
      clock: "client",
      predicted_n: 1,
      decode_ms: null,
      tpot_ms: null,
      draft_n: null,
    });
    expect(of("b")).toMatchObject({ clock: "client", predicted_n: 2, arm_header: null });
  });

  it("never mixes arms when several requests run at once, and starts one when another ends", async () => {
    // each answer but the last ones waits until four more requests than were answered have come
    let arrived = 0;
    let answered = 0;
    const waiting: (() => void)[] = [];
    const letGo = (all: boolean): void => {
      while (waiting.length > 0 && (all || arrived >= answered + 4)) {
        answered++;
        waiting.shift()?.();
      }
    };
    server.answer = () => {
      arrived++;
      const gate = new Promise<void>((resolve) => waiting.push(resolve));
      letGo(arrived % 8 === 0);
      return { after: gate };
    };
    await runAb(client, { ...OPTIONS, repeat: 6, concurrency: 4, block: 8 });
    expect(server.seen).toHaveLength(48);
    expect(server.mostAtOnce).toBe(4);
    expect(server.mixedArms).toBe(false);
  });

  it("takes four rounds of an arm in a row when several requests run at once", () => {
    expect(blockSize({ concurrency: 1 })).toBe(1);
    expect(blockSize({ concurrency: 8 })).toBe(32);
    expect(blockSize({ concurrency: 8, block: 3 })).toBe(3);
    expect(blockSize({ concurrency: 1, rate: 2 })).toBe(16);
  });

  it("does not count the warm-up", async () => {
    const run = await runAb(client, { ...OPTIONS, warmup: 3 });
    expect(server.seen).toHaveLength(14);
    expect(run.samples).toHaveLength(8);
  });

  it.each([
    ["an error status", { status: 400 }, "the server answered 400"],
    ["an error in the stream", { error: { message: "out of memory" } }, "out of memory"],
    ["a stream that is cut", { cut: true }, "the request failed"],
    ["a stream without an end", { finish: "" }, "ended before the answer was complete"],
  ])("notes %s and goes on", async (_name, answer, message) => {
    server.answer = ({ prompt }) => (prompt === "b" ? answer : { timings: timings(3, 5) });
    const run = await runAb(client, OPTIONS);
    expect(run.complete).toBe(true);
    const failed = run.samples.filter((sample) => sample.error !== null);
    expect(failed.map((sample) => sample.id)).toEqual(["b", "b"]);
    expect(failed[0].error).toContain(message);
    expect(failed[0]).toMatchObject({ decode_ms: null, e2e_ms: null });
  });

  it("gives up when nothing is answered any more, and keeps what there is", async () => {
    server.answer = ({ prompt }) => (prompt === "a" ? {} : { status: 503 });
    const run = await runAb(client, {
      ...OPTIONS,
      prompts: [...PROMPTS, { id: "e", category: "x", text: "e" }],
    });
    expect(run.complete).toBe(false);
    expect(run.stopped?.message).toContain("3 times in a row");
    expect(run.samples).toHaveLength(8);
  });

  it("keeps what was measured when it is interrupted", async () => {
    const controller = new AbortController();
    server.answer = () => {
      if (server.seen.length < 4) return {};
      controller.abort();
      return { after: new Promise(() => {}) };
    };
    const run = await runAb(client, OPTIONS, { signal: controller.signal });
    expect(run).toMatchObject({ complete: false, stopped: { code: "ADED_INTERRUPTED", exitStatus: 130 } });
    expect(run.samples).toHaveLength(3);
  });

  it("says what to do when there is no server", async () => {
    await server.close();
    await expect(client.get("/props")).rejects.toMatchObject({
      code: "ADED_ENGINE_UNREACHABLE",
      message: expect.stringContaining("ECONNREFUSED"),
      hint: expect.stringContaining("--url"),
    });
    await expect(runAb(client, { ...OPTIONS, warmup: 1 })).rejects.toMatchObject({
      code: "ADED_ENGINE_UNREACHABLE",
    });
  });
});

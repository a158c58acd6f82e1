/** What befalls the engine's process from outside: it is stopped and goes on, is stopped and killed, or gets too little memory. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { ensureEngine } from "../../src/engine/build.ts";
import { defaultModelName, ensureModel } from "../../src/engine/models.ts";
import { EngineProcess } from "../../src/engine/process.ts";
import { silentLog } from "../../src/log.ts";
import type { StreamEvent } from "./support/endpoint.ts";
import { EXACT } from "./support/exact.ts";
import { complete } from "./support/generate.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack, untilLinked } from "./support/stack.ts";

const BODY = { prompt: TURNS[0], n_predict: 60 };
const STREAMED = { ...BODY, stream: true, temperature: 0, return_tokens: true, cache_prompt: false };

describe("an engine that is stopped by a signal", () => {
  let stack: Stack;
  /** Tokens of the plain answer to BODY. */
  let plain: number[];

  beforeAll(async () => {
    stack = await startStack(EXACT);
    plain = (await complete(stack.proxy, BODY, "off")).tokens;
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  const signal = (name: NodeJS.Signals): boolean => process.kill(stack.engine.snapshot().pid as number, name);

  /** Reads a stream, calls `at` after its third event. @returns its tokens and last event */
  async function read(
    at: () => void,
  ): Promise<{ tokens: number[]; last: StreamEvent | undefined; whole: boolean }> {
    const { events } = await stack.proxy.stream("/completion", STREAMED);
    const tokens: number[] = [];
    let last: StreamEvent | undefined;
    let count = 0;
    try {
      for await (const event of events) {
        last = event;
        const { tokens: more = [], stop } = JSON.parse(event.value) as { tokens?: number[]; stop?: boolean };
        if (stop !== true) tokens.push(...more);
        if (++count === 3) at();
      }
      return { tokens, last, whole: true };
    } catch {
      return { tokens, last, whole: false };
    }
  }

  async function servesAgain(): Promise<void> {
    while ((await stack.proxy.send("GET", "/readyz")).status !== 200) await delay(50);
    if (stack.drafting) await untilLinked(stack.drafting);
    const answer = await complete(stack.proxy, BODY, "on");
    expect(answer.tokens).toEqual(plain);
    expect(answer.timings.draft_n).toBeGreaterThan(0);
  }

  it("in the middle of a stream, and goes on: the text is whole", async () => {
    const { tokens, whole } = await read(() => {
      signal("SIGSTOP");
      setTimeout(() => signal("SIGCONT"), 1500);
    });
    expect(whole).toBe(true);
    expect(tokens).toEqual(plain);
    await servesAgain();
  });

  it("before it answers, and goes on: the answer is whole", async () => {
    signal("SIGSTOP");
    const answer = complete(stack.proxy, BODY, "on");
    await delay(1000);
    signal("SIGCONT");
    expect((await answer).tokens).toEqual(plain);
    await servesAgain();
  });

  it("in the middle of a stream, and killed: an error ends it, and nothing stays", async () => {
    await servesAgain();
    const descriptors = readdirSync("/proc/self/fd").length;
    const { last, whole } = await read(() => {
      signal("SIGSTOP");
      setTimeout(() => signal("SIGKILL"), 500);
    });
    expect(whole).toBe(false);
    expect(JSON.parse(last?.value ?? "{}")).toMatchObject({ error: { type: "server_error" } });
    await servesAgain();
    // connections that are kept for the next request, and those of the one just now
    expect(readdirSync("/proc/self/fd").length).toBeLessThanOrEqual(descriptors + 2);
  });

  it("before it answers, and killed: 502, and the next request is answered", async () => {
    signal("SIGSTOP");
    const answer = stack.proxy.send("POST", "/completion", { body: JSON.stringify(BODY) });
    await delay(300);
    signal("SIGKILL");
    const { status, body } = await answer;
    expect(status).toBe(502);
    expect(JSON.parse(body.toString())).toMatchObject({ error: { code: "engine_died" } });
    await servesAgain();
  });

  it("told to end by others, in the middle of a stream and of an answer: both end with its error, and the next request is answered", async () => {
    await servesAgain();
    const answer = stack.proxy.send("POST", "/completion", {
      body: JSON.stringify({ ...BODY, n_predict: 2000, ignore_eos: true }),
    });
    const { pid } = stack.engine.snapshot();
    const { tokens, last } = await read(() => signal("SIGTERM"));
    expect(tokens).toEqual(plain.slice(0, tokens.length));
    expect(tokens.length).toBeLessThan(plain.length);
    // its own words, or the proxy's where it closed the connection first
    const errors = [{ code: 503, type: "unavailable_error" }, { type: "server_error" }];
    expect(errors).toContainEqual(expect.objectContaining(kindOf(last?.value)));
    const { status, body } = await answer;
    expect([502, 503]).toContain(status);
    expect(errors).toContainEqual(expect.objectContaining(kindOf(body.toString())));
    // it takes a moment to end
    while (stack.engine.snapshot().pid === pid) await delay(20);
    await servesAgain();
  });

  it("and is told to end by us: it does not outlive us", async () => {
    const pid = stack.engine.snapshot().pid as number;
    signal("SIGSTOP");
    await stack.engine.stop(200);
    expect(() => process.kill(pid, 0)).toThrow();
  });
});

/** Type of an error, and its code if it is the engine's. */
function kindOf(text = "{}"): { type?: string; code?: number } {
  const { type, code } =
    (JSON.parse(text) as { error?: { type: string; code: number | string } }).error ?? {};
  return typeof code === "number" ? { type, code } : { type };
}

describe("an engine with too little memory", () => {
  let folder: string;
  let engine: EngineProcess | undefined;

  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "aded-e2e-"));
    await ensureEngine();
    await ensureModel(defaultModelName);
  }, SETUP_MS);
  afterAll(async () => {
    await engine?.stop(0);
    rmSync(folder, { recursive: true, force: true });
  });

  it("does not start, and its own last words say why", async () => {
    const { serverPath } = await ensureEngine();
    const limited = path.join(folder, "llama-server");
    // 700 MB of address space: enough to start and to print, not for a context of that size
    writeFileSync(limited, `#!/bin/sh\n[ "$1" = --help ] || ulimit -v 700000\nexec '${serverPath}' "$@"\n`, {
      mode: 0o755,
    });
    engine = new EngineProcess({
      model: "starved",
      serverPath: limited,
      modelPath: await ensureModel(defaultModelName),
      args: ["-c", "65536", "-t", "1"],
      log: silentLog(),
      logFile: path.join(folder, "engine.log"),
    });
    const failure = await engine.start().then(
      () => undefined,
      (error: Error & { code?: string; hint?: string }) => error,
    );
    expect(failure).toMatchObject({ code: "ADED_ENGINE_START" });
    expect(failure?.message).toMatch(/alloc|memory|mmap|load model/i);
    expect(failure?.hint).toContain("engine.log");
    expect(engine.snapshot().pid).toBeUndefined();
  });
});

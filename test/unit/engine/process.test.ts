import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it, jest } from "@jest/globals";
import { Agent, type Dispatcher, request } from "undici";
import { createEngine } from "../../../src/engine/create.ts";
import type { Engine, EngineSnapshot, EngineState } from "../../../src/engine/engine.ts";
import { EngineProcess, type EngineProcessOptions } from "../../../src/engine/process.ts";
import { projectPath } from "../../../src/home.ts";
import { silentLog } from "../../../src/log.ts";
import { modelSchema } from "../../../src/options.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();
const serverPath = projectPath("test", "unit", "engine", "support", "fake-engine.mjs");
const engines: Engine[] = [];

afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.stop(100);
});

function create(options: Partial<EngineProcessOptions> = {}): EngineProcess {
  const engine = new EngineProcess({
    model: "fake/one",
    serverPath,
    modelPath: "/m.gguf",
    log: silentLog(),
    ...options,
  });
  engines.push(engine);
  return engine;
}

function until(engine: Engine, state: EngineState): Promise<EngineSnapshot> {
  return new Promise((resolve) => {
    const look = (snapshot: EngineSnapshot): void => {
      if (snapshot.state !== state) return;
      engine.off("state", look);
      resolve(snapshot);
    };
    engine.on("state", look);
  });
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

describe("EngineProcess", () => {
  it("starts, waits for the model, knows what it started, and stops", async () => {
    const record = path.join(home, "record.jsonl");
    process.env.LLAMA_API_KEY = "must not reach the engine";
    const engine = create({ args: ["-c", "512"], env: { FAKE_LOADING: "3", FAKE_RECORD: record, OWN: "1" } });
    const states: EngineState[] = [];
    engine.on("state", (snapshot) => states.push(snapshot.state));
    await engine.start();
    delete process.env.LLAMA_API_KEY;
    expect(engine.snapshot()).toMatchObject({
      state: "ready",
      kind: "patched",
      restarts: 0,
      pid: expect.any(Number),
    });
    const { args, mode, key, own } = JSON.parse(readFileSync(record, "utf8"));
    expect(args.slice(0, 6)).toEqual([
      "-m",
      "/m.gguf",
      "--host",
      engine.address.socketPath,
      "--draft-socket",
      engine.draftSocket,
    ]);
    expect(args.slice(-2)).toEqual(["-c", "512"]);
    expect([mode, key, own]).toEqual(["700", null, "1"]);
    expect(readFileSync(engine.logFile, "utf8")).toContain("fake engine: loading");
    expect(path.basename(engine.logFile)).toBe("fake_one.log");
    await engine.stop();
    expect(states).toEqual(["starting", "ready", "stopping", "stopped"]);
    expect(readdirSync(path.join(home, "run"))).toEqual([]);
  });

  it("runs a stock engine without a draft socket, and a patched one too when drafts are off", async () => {
    const stock = create({ env: { FAKE_STOCK: "1" } });
    process.env.FAKE_STOCK = "1";
    await stock.start();
    delete process.env.FAKE_STOCK;
    expect(stock.snapshot().kind).toBe("stock");
    expect(stock.draftSocket).toBeUndefined();
    const plain = create({ drafts: false });
    await plain.start();
    expect(plain.snapshot().kind).toBe("patched");
    expect(plain.draftSocket).toBeUndefined();
  });

  it("is not ready before what it has to wait for, at the start and after each restart", async () => {
    const engine = create({ restart: { firstDelayMs: 1 } });
    const seen: EngineState[] = [];
    const gates: (() => void)[] = [];
    let entered = (): void => {};
    engine.beforeReady = () => {
      seen.push(engine.snapshot().state);
      return new Promise((resolve) => {
        gates.push(resolve);
        entered();
      });
    };
    const next = (): Promise<void> => new Promise((resolve) => (entered = resolve));
    let held = next();
    const started = engine.start();
    await held;
    expect(engine.snapshot().state).toBe("starting");
    gates[0]();
    await started;
    held = next();
    process.kill(engine.snapshot().pid as number, "SIGKILL");
    await held;
    const back = until(engine, "ready");
    gates[1]();
    await back;
    expect(seen).toEqual(["starting", "restarting"]);
  });

  it("is ready all the same when what it waits for fails, and ends when it is stopped meanwhile", async () => {
    const engine = create();
    engine.beforeReady = () => Promise.reject(new Error("no link"));
    await engine.start();
    expect(engine.snapshot().state).toBe("ready");
    const held = create();
    const entered = new Promise<void>((resolve) => {
      held.beforeReady = (signal) => {
        resolve();
        return new Promise((done) => signal.addEventListener("abort", () => done(), { once: true }));
      };
    });
    const start = expect(held.start()).rejects.toMatchObject({ code: "ADED_ENGINE_START" });
    await entered;
    await held.stop(100);
    await start;
    expect(held.snapshot().state).toBe("stopped");
  });

  it("says why a start failed, with the engine's last words", async () => {
    const engine = create({ env: { FAKE_DIE: "1" } });
    await expect(engine.start()).rejects.toMatchObject({
      code: "ADED_ENGINE_START",
      message: expect.stringMatching(/ended with status 7 before it was ready:[\s\S]*bad weights/),
      hint: expect.stringContaining("models.fake/one.args"),
    });
    expect(engine.snapshot()).toMatchObject({ state: "failed", reason: expect.stringContaining("status 7") });
    expect(readdirSync(path.join(home, "run"))).toEqual([]);
    await expect(create({ serverPath: "/no/such/server" }).start()).rejects.toMatchObject({
      code: "ADED_ENGINE_START",
    });
  });

  it("comes back on the same address after it was killed", async () => {
    const engine = create({ restart: { firstDelayMs: 1 } });
    await engine.start();
    const { pid } = engine.snapshot();
    const died = until(engine, "restarting");
    const back = until(engine, "ready");
    process.kill(pid as number, "SIGKILL");
    expect(await died).toMatchObject({ reason: "the engine ended by SIGKILL" });
    expect(await back).toMatchObject({ restarts: 1, reason: undefined });
    expect(engine.snapshot().pid).not.toBe(pid);
    const { statusCode } = await request("http://localhost/health", { dispatcher: agent(engine) });
    expect(statusCode).toBe(200);
  });

  it("gives up when it dies all the time, and can be started again by hand", async () => {
    const engine = create({ restart: { firstDelayMs: 1, maxDeaths: 3 } });
    await engine.start();
    const failed = until(engine, "failed");
    engine.on("state", ({ state, pid }) => {
      if (state === "ready") process.kill(pid as number, "SIGKILL");
    });
    process.kill(engine.snapshot().pid as number, "SIGKILL");
    expect(await failed).toMatchObject({
      restarts: 2,
      reason: expect.stringContaining("died too often, last: ended by SIGKILL"),
    });
    engine.removeAllListeners("state");
    await engine.start();
    expect(engine.snapshot().state).toBe("ready");
  });

  it("gives up when it dies all the time, also while the wall clock is set forward", async () => {
    const engine = create({ restart: { firstDelayMs: 1, maxDeaths: 3 } });
    await engine.start();
    const failed = until(engine, "failed");
    engine.on("state", ({ state, pid }) => {
      if (state === "ready") process.kill(pid as number, "SIGKILL");
    });
    let jump = 0;
    const real = Date.now;
    // an hour each time that somebody looks: no two deaths would be within a minute
    const clock = jest.spyOn(Date, "now").mockImplementation(() => real() + ++jump * 3_600_000);
    process.kill(engine.snapshot().pid as number, "SIGKILL");
    expect(await failed).toMatchObject({ restarts: 2 });
    clock.mockRestore();
  });

  it("ends one that ignores SIGTERM", async () => {
    const engine = create({ env: { FAKE_STUBBORN: "1" } });
    await engine.start();
    const pid = engine.snapshot().pid as number;
    await engine.stop(50);
    expect(isRunning(pid)).toBe(false);
    expect(engine.snapshot().state).toBe("stopped");
  });

  it("can be stopped while it starts, and while it waits to start again", async () => {
    const loading = create({ env: { FAKE_LOADING: "1000000" } });
    const start = loading.start();
    start.catch(() => {});
    while (loading.snapshot().pid === undefined) await new Promise((resolve) => setImmediate(resolve));
    const pid = loading.snapshot().pid as number;
    await loading.stop(1000);
    await expect(start).rejects.toThrow("was stopped while it started");
    expect(isRunning(pid)).toBe(false);
    expect(loading.snapshot().state).toBe("stopped");

    const waiting = create({ restart: { firstDelayMs: 3_600_000 } });
    await waiting.start();
    const died = until(waiting, "restarting");
    process.kill(waiting.snapshot().pid as number, "SIGKILL");
    await died;
    await waiting.stop();
    expect(waiting.snapshot().state).toBe("stopped");
  });

  it("keeps its sockets in a short path when ADED_HOME is a long one", async () => {
    process.env.ADED_HOME = path.join(home, "long".repeat(30));
    const engine = create();
    process.env.ADED_HOME = home;
    expect(Buffer.byteLength(engine.address.socketPath as string)).toBeLessThan(104);
    await engine.start();
    const folder = path.dirname(engine.address.socketPath as string);
    await engine.stop();
    expect(existsSync(folder)).toBe(false);
  });

  it("is what a model with a source gets", async () => {
    const settings = modelSchema.parse({ source: "x", args: "-c 5", drafts: { enabled: false } });
    const engine = createEngine({ model: "a", settings, serverPath, modelPath: "/m.gguf", log: silentLog() });
    expect(engine).toBeInstanceOf(EngineProcess);
    expect(() => createEngine({ model: "a", settings, log: silentLog() })).toThrow(TypeError);
  });
});

function agent(engine: Engine): Dispatcher {
  return new Agent({ connect: { socketPath: engine.address.socketPath } });
}

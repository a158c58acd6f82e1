import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterEach, describe, expect, it } from "@jest/globals";
import { createEngine } from "../../../src/engine/create.ts";
import type { EngineSnapshot } from "../../../src/engine/engine.ts";
import { parseAddress, RemoteEngine } from "../../../src/engine/remote.ts";
import { projectPath } from "../../../src/home.ts";
import { silentLog } from "../../../src/log.ts";
import { modelSchema } from "../../../src/options.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();
const fake = projectPath("test", "unit", "engine", "support", "fake-engine.mjs");
const children: ChildProcess[] = [];
const engines: RemoteEngine[] = [];

afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.stop();
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

function spawnFake(args: string[], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(fake, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "ignore"] });
  children.push(child);
  return child;
}

function remote(engine: string): RemoteEngine {
  const made = new RemoteEngine({ model: "far", engine, log: silentLog(), retryMs: 5, pollMs: 5 });
  engines.push(made);
  return made;
}

function next(engine: RemoteEngine, wanted: (snapshot: EngineSnapshot) => boolean): Promise<EngineSnapshot> {
  return new Promise((resolve) => {
    const look = (snapshot: EngineSnapshot): void => {
      if (!wanted(snapshot)) return;
      engine.off("state", look);
      resolve(snapshot);
    };
    engine.on("state", look);
  });
}

describe("RemoteEngine", () => {
  it("finds a stock engine by its port", async () => {
    const child = spawnFake([], { FAKE_STOCK: "1" });
    const [port] = (await once(createInterface({ input: child.stdout! }), "line")) as [string];
    const engine = remote(`http://127.0.0.1:${port}`);
    await engine.start();
    expect(engine.snapshot()).toEqual({
      model: "far",
      state: "ready",
      restarts: 0,
      reason: undefined,
      kind: "stock",
    });
  });

  it("waits for one that comes later, and notices when it goes and comes back as another", async () => {
    const socket = path.join(home, "far.sock");
    const engine = remote(`unix:${socket}`);
    const waiting = next(engine, ({ reason }) => reason !== undefined);
    const start = engine.start();
    expect(await waiting).toMatchObject({ state: "starting", reason: expect.stringContaining("ENOENT") });
    const first = spawnFake(["--host", socket]);
    await start;
    expect(engine.snapshot()).toMatchObject({ state: "ready", kind: "patched" });
    const gone = next(engine, ({ state }) => state === "restarting");
    first.kill("SIGTERM");
    expect(await gone).toMatchObject({ restarts: 1 });
    const back = next(engine, ({ state }) => state === "ready");
    spawnFake(["--host", `${home}/far.sock`], { FAKE_STOCK: "1" });
    expect(await back).toMatchObject({ kind: "stock" });
  });

  it("stops waiting when it is stopped", async () => {
    const engine = remote("unix:/nowhere/at/all.sock");
    const start = engine.start();
    start.catch(() => {});
    await engine.stop();
    await expect(start).rejects.toMatchObject({ code: "ADED_ENGINE_START" });
    expect(engine.snapshot().state).toBe("stopped");
  });

  it("is what a model with an engine gets", () => {
    const settings = modelSchema.parse({ engine: "http://10.0.0.1:8081/", draft_socket: "/run/d.sock" });
    const engine = createEngine({ model: "b", settings, log: silentLog() });
    expect(engine.address).toEqual({ origin: "http://10.0.0.1:8081" });
    expect(engine.draftSocket).toBe("/run/d.sock");
    const plain = modelSchema.parse({
      engine: "/s.sock",
      draft_socket: "/d.sock",
      drafts: { enabled: false },
    });
    expect(createEngine({ model: "b", settings: plain, log: silentLog() }).draftSocket).toBeUndefined();
  });
});

describe("parseAddress", () => {
  it("reads origins and sockets", () => {
    expect(parseAddress("https://h:1")).toEqual({ origin: "https://h:1" });
    for (const socket of ["unix:/a/b.sock", "unix:///a/b.sock", "/a/b.sock"]) {
      expect(parseAddress(socket)).toEqual({ origin: "http://localhost", socketPath: "/a/b.sock" });
    }
    expect(() => parseAddress("http://h:1/v1")).toThrow("ends after the port");
    expect(() => parseAddress("nonsense")).toThrow('"nonsense" is no address');
  });
});

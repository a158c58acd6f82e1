import { EventEmitter } from "node:events";
import { describe, expect, it } from "@jest/globals";
import { parseConfig } from "../../../src/config.ts";
import type { Engine, EngineEvents, EngineSnapshot } from "../../../src/engine/engine.ts";
import { AdedError } from "../../../src/errors.ts";
import { silentLog } from "../../../src/log.ts";
import { Fleet, type FleetOptions, needsRestart, preloaded } from "../../../src/swap/fleet.ts";
import type { Launch } from "../../../src/swap/model-engine.ts";
import type { Refusal } from "../../../src/swap/scheduler.ts";

class Fake extends EventEmitter<EngineEvents> implements Engine {
  readonly address = { origin: "http://localhost", socketPath: "/s" };
  state: EngineSnapshot["state"] = "stopped";

  readonly model: string;
  readonly fails: () => Error | undefined;

  constructor(model: string, fails: () => Error | undefined) {
    super();
    this.model = model;
    this.fails = fails;
  }

  snapshot(): EngineSnapshot {
    return { model: this.model, state: this.state, restarts: 0, kind: "stock" };
  }

  async start(): Promise<void> {
    const error = this.fails();
    if (error !== undefined) throw error;
    this.set("ready");
  }

  async stop(): Promise<void> {
    this.set("stopped");
  }

  set(state: EngineSnapshot["state"]): void {
    this.state = state;
    this.emit("state", this.snapshot());
  }
}

function fleetOf(
  text: string,
  fails: (model: string) => Error | undefined = () => undefined,
  files: Pick<FleetOptions, "fetch" | "absent"> = {},
) {
  const engines: Fake[] = [];
  const launch: Launch = async (name, _settings, { output }) => {
    output(Buffer.from(`${name} begins\n`));
    const engine = new Fake(name, () => fails(name));
    engines.push(engine);
    return { engine };
  };
  const fleet = new Fleet(parseConfig(text, { env: {} }), { launch, log: silentLog(), ...files });
  return { fleet, engines };
}

const TWO = "models: { a: { source: x }, b: { source: y } }";

function enter(fleet: Fleet, model: string) {
  let tell: (outcome: "granted" | Refusal) => void = () => undefined;
  const outcome = new Promise<"granted" | Refusal>((resolve) => {
    tell = resolve;
  });
  const visit = fleet.enter(model, { granted: () => tell("granted"), refused: (refusal) => tell(refusal) });
  return { visit, outcome };
}

describe("the fleet", () => {
  it("starts a model for a request, and swaps once it is over", async () => {
    const { fleet } = fleetOf(TWO);
    const first = enter(fleet, "a");
    expect(await first.outcome).toBe("granted");
    const second = enter(fleet, "b");
    expect(second.visit.progress()).toMatchObject({ model: "b", state: "stopped", ahead: 0 });
    first.visit.leave();
    expect(await second.outcome).toBe("granted");
    expect(fleet.status("a")?.phase).toBe("stopped");
    expect(fleet.logOf("b")?.tail()).toEqual(["b begins"]);
    await fleet.close();
  });

  it("tells each who waits why a start failed", async () => {
    const { fleet } = fleetOf(
      TWO,
      () => new AdedError("ADED_ENGINE_START", "it is broken", { hint: "mend it" }),
    );
    const both = [enter(fleet, "a"), enter(fleet, "a")];
    for (const { outcome } of both) {
      expect(await outcome).toMatchObject({
        kind: "start-failed",
        error: "it is broken (mend it)",
        retryMs: 2000,
      });
    }
    await expect(fleet.load("a")).rejects.toThrow("it is broken");
    await fleet.close();
  });

  it("makes room when a model does not fit, and says so when that is not enough", async () => {
    let fits = false;
    const text = `${TWO.slice(0, -1)}, p: { source: z, pinned: true } }\ngroups: { g: { members: [a, b], swap: false } }`;
    const { fleet } = fleetOf(text, (model) =>
      model !== "b" || fits ? undefined : new AdedError("ADED_MEMORY", "it needs too much"),
    );
    await fleet.load("a");
    expect(await enter(fleet, "b").outcome).toMatchObject({
      kind: "start-failed",
      error: "it needs too much",
    });
    expect(fleet.status("a")?.phase).toBe("stopped");
    fits = true;
    await fleet.load("b");
    await fleet.load("a");
    expect([fleet.status("a")?.phase, fleet.status("b")?.phase]).toEqual(["ready", "ready"]);
    await fleet.close();
  });

  it("starts an engine that gave up anew for the next request after the back-off", async () => {
    const { fleet, engines } = fleetOf(TWO);
    await fleet.load("a");
    engines[0].set("failed");
    await new Promise((resolve) => fleet.engines[0].once("state", () => setImmediate(resolve)));
    expect(await enter(fleet, "a").outcome).toMatchObject({ kind: "start-failed" });
    await fleet.load("a");
    expect(engines).toHaveLength(2);
    await fleet.close();
  });

  it("takes over a config: what is new can be asked for, what is gone ends, what changed starts anew", async () => {
    const { fleet, engines } = fleetOf(TWO);
    await fleet.load("a");
    const next = parseConfig("models: { a: { source: x, args: -c 5 }, c: { source: z } }", { env: {} });
    expect(fleet.apply(next)).toEqual({ added: ["c"], removed: ["b"], restarted: ["a"] });
    await fleet.load("a");
    expect(engines.map(({ model }) => model)).toEqual(["a", "a"]);
    expect(fleet.engines.map(({ model }) => model)).toEqual(["a", "c"]);
    expect(await enter(fleet, "b").outcome).toEqual({ kind: "removed" });
    await fleet.close();
  });

  describe("with a model whose file is not there", () => {
    /** Files that are there, and what ends each fetch, by source. */
    function remote(text = TWO) {
      const there = new Set(["x"]);
      const fetches: { source: string; signal: AbortSignal; end(error?: Error): void }[] = [];
      const { fleet, engines } = fleetOf(text, undefined, {
        absent: ({ source = "" }) => !there.has(source),
        fetch: ({ source = "" }, { signal, note }) =>
          new Promise((resolve, reject) => {
            note(`fetching ${source}`);
            signal.addEventListener("abort", () => reject(signal.reason));
            const end = (error?: Error): void => {
              if (error !== undefined) {
                reject(error);
                return;
              }
              there.add(source);
              resolve();
            };
            fetches.push({ source, signal, end });
          }),
      });
      return { fleet, engines, fetches };
    }

    it("fetches it beside the running one, and tells who waits what it does", async () => {
      const { fleet, engines, fetches } = remote();
      await fleet.load("a");
      const other = enter(fleet, "b");
      expect(fetches.map(({ source }) => source)).toEqual(["y"]);
      expect(other.visit.progress()).toMatchObject({ state: "starting", note: "fetching y" });
      const again = enter(fleet, "a");
      expect(await again.outcome).toBe("granted");
      again.visit.leave();
      expect(engines.map(({ model }) => model)).toEqual(["a"]);
      fetches[0].end();
      expect(await other.outcome).toBe("granted");
      expect(engines.map(({ model, state }) => `${model} ${state}`)).toEqual(["a stopped", "b ready"]);
      await fleet.close();
    });

    it("says why it can't be fetched, and leaves the running one alone", async () => {
      const { fleet, fetches } = remote();
      await fleet.load("a");
      const other = enter(fleet, "b");
      fetches[0].end(new AdedError("ADED_DOWNLOAD", "no such file", { hint: "look at its name" }));
      expect(await other.outcome).toMatchObject({ error: "no such file (look at its name)" });
      expect(fleet.engines.map((engine) => engine.snapshot())).toMatchObject([
        { state: "ready" },
        { state: "failed", reason: "no such file" },
      ]);
      await fleet.close();
    });

    it("ends the fetch when it is unloaded, and begins another one when its source changes", async () => {
      const { fleet, fetches } = remote();
      const first = enter(fleet, "b");
      await fleet.unload("b");
      expect(fetches[0].signal.aborted).toBe(true);
      expect(await first.outcome).toMatchObject({ kind: "start-failed" });
      const second = fleet.load("b");
      expect(fetches).toHaveLength(2);
      fleet.apply(parseConfig("models: { a: { source: x }, b: { source: z } }", { env: {} }));
      while (fetches.length < 3) await new Promise((resolve) => setImmediate(resolve));
      expect(fetches.map(({ source, signal }) => [source, signal.aborted])).toEqual([
        ["y", true],
        ["y", true],
        ["z", false],
      ]);
      fetches[2].end();
      await second;
      await fleet.close();
    });

    it("ends the fetch when the server ends", async () => {
      const { fleet, fetches } = remote();
      enter(fleet, "b");
      await fleet.close();
      expect(fetches[0].signal.aborted).toBe(true);
    });
  });

  it("unloads by hand", async () => {
    const { fleet } = fleetOf(TWO);
    await fleet.load("a");
    await fleet.unload("a");
    expect(fleet.status("a")?.phase).toBe("stopped");
    await expect(fleet.unload("nobody")).rejects.toMatchObject({ code: "ADED_MODEL_UNKNOWN" });
    await fleet.close();
  });
});

describe("settings", () => {
  const models = (text: string) => parseConfig(`models: { ${text} }`, { env: {} }).models;

  it("that the scheduler and the proxy can take over need no new engine", () => {
    const before = models("a: { source: x }").a;
    const lazy = models(
      "a: { source: x, ttl: 5, aliases: [b], hidden: true, max_running: 2, pinned: true }",
    ).a;
    expect(needsRestart(before, lazy)).toBe(false);
    for (const text of [
      "source: y",
      "source: x, args: -c 1",
      "source: x, env: { A: b }",
      "source: x, drafts: { top_k: 3 }",
    ]) {
      expect(needsRestart(before, models(`a: { ${text} }`).a)).toBe(true);
    }
  });

  it("say which models are started with the server: the first, unless some say so", () => {
    expect(preloaded({ models: models("a: { source: x }, b: { source: y }") })).toEqual(["a"]);
    expect(preloaded({ models: models("a: { source: x }, b: { source: y, pinned: true }") })).toEqual(["b"]);
    expect(preloaded({ models: models("a: { source: x, preload: false }, b: { source: y }") })).toEqual([]);
    expect(preloaded({ models: models("a: { source: x }, r: { engine: 'http://h:1' }") })).toEqual([
      "r",
      "a",
    ]);
  });
});

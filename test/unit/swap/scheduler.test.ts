import { describe, expect, it } from "@jest/globals";
import { rulesOf, World } from "./world.ts";

const two = { a: {}, b: {} };

/** A world in which `model` is ready. */
function with1(model: string, world: World): World {
  const first = world.request(model);
  world.started(model);
  world.leave(first);
  return world;
}

describe("a swap", () => {
  it("starts a model on demand and lets the request go when it is ready", () => {
    const world = new World(rulesOf(two));
    const id = world.request("a");
    expect(world.engines.get("a")).toBe("starting");
    expect(world.outcome(id)).toBe("waiting");
    world.started("a");
    expect(world.outcome(id)).toBe("running");
  });

  it("waits for all running requests, then stops the one and starts the other", () => {
    const world = with1("a", new World(rulesOf(two)));
    const [r1, r2] = [world.request("a"), world.request("a")];
    const other = world.request("b");
    world.leave(r1);
    expect(world.engines).toEqual(new Map([["a", "ready"]]));
    world.leave(r2);
    expect(world.engines).toEqual(new Map([["a", "stopping"]]));
    world.stopped("a");
    world.started("b");
    expect(world.outcome(other)).toBe("running");
  });

  it("has later requests of the running model wait behind those of the other", () => {
    const world = with1("a", new World(rulesOf(two)));
    const running = world.request("a");
    const other = world.request("b");
    const late = world.request("a");
    expect(world.outcome(late)).toBe("waiting");
    world.leave(running);
    world.stopped("a");
    world.started("b");
    expect([world.outcome(other), world.outcome(late)]).toEqual(["running", "waiting"]);
    world.leave(other);
    world.stopped("b");
    world.started("a");
    expect(world.outcome(late)).toBe("running");
  });

  it("goes on taking requests while its residency lasts, and no longer", () => {
    const world = with1("a", new World(rulesOf(two, { residencyMs: 5000 })));
    const first = world.request("a");
    world.request("b");
    world.tick(1000);
    const second = world.request("a");
    expect(world.outcome(second)).toBe("running");
    expect(world.scheduler.wakeAt).toBe(5000);
    world.tick(4000);
    expect(world.outcome(world.request("a"))).toBe("waiting");
    world.leave(first);
    world.leave(second);
    expect(world.engines.get("a")).toBe("stopping");
  });

  it("is called off when the one who waited for it leaves", () => {
    const world = with1("a", new World(rulesOf(two)));
    world.request("a");
    const other = world.request("b");
    const late = world.request("a");
    world.leave(other);
    expect(world.outcome(late)).toBe("running");
    expect(world.engines).toEqual(new Map([["a", "ready"]]));
  });

  it("stops a start that nobody waits for any more when another model is wanted", () => {
    const world = new World(rulesOf(two));
    const gone = world.request("a");
    const other = world.request("b");
    expect(world.engines).toEqual(new Map([["a", "starting"]]));
    world.leave(gone);
    expect(world.engines.get("a")).toBe("stopping");
    world.stopped("a");
    world.started("b");
    expect(world.outcome(other)).toBe("running");
  });
});

describe("the queue", () => {
  it("has a cap", () => {
    const world = new World(rulesOf(two, { queueMax: 2 }));
    world.request("a");
    world.request("b");
    const third = world.request("a");
    expect(world.requests.get(third)).toEqual({ model: "a", outcome: "queue-full", retryMs: 1000 });
  });

  it("has a time limit", () => {
    const world = new World(rulesOf(two, { queueMs: 3000 }));
    const id = world.request("a");
    expect(world.scheduler.wakeAt).toBe(3000);
    world.tick(2999);
    expect(world.outcome(id)).toBe("waiting");
    world.tick(1);
    expect(world.outcome(id)).toBe("queue-timeout");
    world.started("a");
    expect(world.outcome(world.request("a"))).toBe("running");
  });

  it("keeps the order where a model takes few requests at once", () => {
    const world = with1("a", new World(rulesOf({ a: { maxRunning: 1 } })));
    const [r1, r2, r3] = [world.request("a"), world.request("a"), world.request("a")];
    expect([r1, r2, r3].map((id) => world.outcome(id))).toEqual(["running", "waiting", "waiting"]);
    world.leave(r1);
    expect([r2, r3].map((id) => world.outcome(id))).toEqual(["running", "waiting"]);
  });

  it("refuses a model that is not there", () => {
    expect(new World(rulesOf(two)).scheduler.handle({ type: "request", id: 1, model: "c" }, 0)).toEqual([
      { type: "refuse", id: 1, refusal: { kind: "removed" } },
    ]);
  });
});

describe("a start that fails", () => {
  it("tells all who waited, and those who ask before the back-off is over", () => {
    const world = new World(rulesOf(two));
    const ids = [world.request("a"), world.request("a")];
    world.failed("a");
    for (const id of ids)
      expect(world.requests.get(id)).toMatchObject({ outcome: "start-failed", retryMs: 1000 });
    world.tick(400);
    expect(world.requests.get(world.request("a"))).toMatchObject({ outcome: "start-failed", retryMs: 600 });
    expect(world.engines.size).toBe(0);
  });

  it("is tried again after the back-off, which doubles up to its bound", () => {
    const world = new World(rulesOf(two, { backoffMaxMs: 3000 }));
    const waits: (number | undefined)[] = [];
    for (let i = 0; i < 4; i++) {
      const id = world.request("a");
      world.failed("a");
      waits.push(world.requests.get(id)?.retryMs);
      world.tick(3000);
    }
    expect(waits).toEqual([1000, 2000, 3000, 3000]);
    world.request("a");
    world.started("a");
    world.failed("a", "died");
    expect(world.scheduler.view("a")).toMatchObject({
      phase: "stopped",
      blockedUntil: 13_000,
      error: "a is broken",
    });
  });

  it("of one model does not keep others from running", () => {
    const world = new World(rulesOf(two));
    world.request("a");
    const other = world.request("b");
    world.failed("a");
    expect(world.engines).toEqual(new Map([["b", "starting"]]));
    world.started("b");
    expect(world.outcome(other)).toBe("running");
  });
});

describe("groups", () => {
  it("run together without swap, and are stopped by another, exclusive group", () => {
    const rules = rulesOf(
      { a: { group: "g" }, b: { group: "g" }, c: {} },
      { groups: { g: { swap: false } } },
    );
    const world = new World(rules);
    const [a, b] = [world.request("a"), world.request("b")];
    world.started("a");
    world.started("b");
    expect([world.outcome(a), world.outcome(b)]).toEqual(["running", "running"]);
    world.request("c");
    world.leave(a);
    expect(Object.fromEntries(world.engines)).toEqual({ a: "stopping", b: "ready" });
    world.leave(b);
    world.stopped("a");
    expect(world.engines.has("c")).toBe(false);
    world.stopped("b");
    expect(Object.fromEntries(world.engines)).toEqual({ c: "starting" });
  });

  it("that are not exclusive leave others alone; persistent ones are left alone", () => {
    const world = new World(
      rulesOf(
        { a: { group: "guest" }, b: { group: "keeper" }, c: {} },
        { groups: { guest: { exclusive: false }, keeper: { persistent: true } } },
      ),
    );
    with1("c", world);
    world.request("a");
    expect(Object.fromEntries(world.engines)).toEqual({ c: "ready", a: "starting" });
    with1("b", new World(world.rules));
    const kept = with1("b", new World(world.rules));
    kept.request("c");
    expect(Object.fromEntries(kept.engines)).toEqual({ b: "ready", c: "starting" });
  });

  it("never stop a pinned model, nor does it stop them", () => {
    const world = new World(rulesOf({ a: { pinned: true }, b: {}, c: {} }));
    with1("b", world);
    world.request("a");
    expect(Object.fromEntries(world.engines)).toEqual({ b: "ready", a: "starting" });
    world.started("a");
    world.request("c");
    expect(Object.fromEntries(world.engines)).toEqual({ b: "stopping", a: "ready" });
  });

  it("start a pinned model again after the back-off when it died", () => {
    const world = with1("a", new World(rulesOf({ a: { pinned: true } })));
    world.failed("a", "died");
    expect(world.engines.size).toBe(0);
    expect(world.scheduler.wakeAt).toBe(1000);
    world.tick(1000);
    expect(world.engines.get("a")).toBe("starting");
  });
});

describe("time to live", () => {
  it("stops a model that was not used for so long", () => {
    const world = with1("a", new World(rulesOf({ a: { ttlMs: 1000 } })));
    const id = world.request("a");
    world.tick(5000);
    expect(world.engines.get("a")).toBe("ready");
    world.leave(id);
    expect(world.scheduler.wakeAt).toBeLessThanOrEqual(6000);
    world.tick(999);
    expect(world.engines.get("a")).toBe("ready");
    world.tick(1);
    expect(world.engines.get("a")).toBe("stopping");
  });

  it("does not count a quiet request as use", () => {
    const world = with1("a", new World(rulesOf({ a: { ttlMs: 1000 } })));
    world.tick(900);
    world.leave(world.request("a", { quiet: true }));
    world.tick(100);
    expect(world.engines.get("a")).toBe("stopping");
  });
});

describe("memory", () => {
  it("has the longest unused models stop, one at a time, until there is room", () => {
    const world = new World(
      rulesOf(
        { a: { group: "g" }, b: { group: "g" }, c: { group: "g" }, p: { pinned: true } },
        { groups: { g: { swap: false } } },
      ),
    );
    for (const model of ["p", "b", "a"]) {
      world.tick(10);
      with1(model, world);
    }
    const id = world.request("c");
    world.failed("c", "no-room");
    expect(Object.fromEntries(world.engines)).toEqual({ p: "ready", b: "stopping", a: "ready" });
    world.stopped("b");
    expect(world.engines.get("c")).toBe("starting");
    world.failed("c", "no-room");
    expect(world.engines.get("a")).toBe("stopping");
    world.stopped("a");
    world.failed("c", "no-room");
    expect(world.outcome(id)).toBe("start-failed");
    expect(Object.fromEntries(world.engines)).toEqual({ p: "ready" });
  });
});

describe("by hand", () => {
  it("load waits until the model is ready, and does not count as running", () => {
    const world = new World(rulesOf(two));
    expect(world.scheduler.handle({ type: "load", id: 7, model: "a" }, 0)).toEqual([
      { type: "start", model: "a" },
    ]);
    expect(world.scheduler.handle({ type: "started", model: "a" }, 0)).toEqual([{ type: "grant", id: 7 }]);
    expect(world.scheduler.view("a")).toMatchObject({ phase: "ready", running: 0 });
  });

  it("unload waits for running requests; whoever still asks starts it again", () => {
    const world = with1("a", new World(rulesOf(two)));
    const id = world.request("a");
    world.send({ type: "unload", model: "a" });
    const late = world.request("a");
    expect(world.outcome(late)).toBe("waiting");
    world.leave(id);
    expect(world.engines.get("a")).toBe("stopping");
    world.stopped("a");
    expect(world.engines.get("a")).toBe("starting");
  });
});

describe("new rules", () => {
  it("restart only what changed, draining first", () => {
    const rules = rulesOf({ a: { group: "g" }, b: { group: "g" } }, { groups: { g: { swap: false } } });
    const world = new World(rules);
    with1("a", world);
    with1("b", world);
    const id = world.request("a");
    world.send({ type: "rules", rules, changed: ["a"] });
    expect(Object.fromEntries(world.engines)).toEqual({ a: "ready", b: "ready" });
    world.leave(id);
    expect(Object.fromEntries(world.engines)).toEqual({ a: "stopping", b: "ready" });
    world.stopped("a");
    expect(Object.fromEntries(world.engines)).toEqual({ a: "starting", b: "ready" });
  });

  it("let a model that is gone finish, and refuse who waits for it", () => {
    const world = with1("a", new World(rulesOf(two)));
    const id = world.request("a");
    const waiting = world.request("b");
    world.send({ type: "rules", rules: rulesOf({ c: {} }), changed: [] });
    expect(world.outcome(waiting)).toBe("removed");
    expect(world.outcome(world.request("a"))).toBe("removed");
    world.leave(id);
    world.stopped("a");
    expect(world.scheduler.view("a")).toBeUndefined();
    expect(world.scheduler.view("c")).toMatchObject({ phase: "stopped" });
  });

  it("try a model again at once whose start had failed", () => {
    const world = new World(rulesOf(two));
    world.request("a");
    world.failed("a");
    world.send({ type: "rules", rules: world.rules, changed: ["a"] });
    world.request("a");
    expect(world.engines.get("a")).toBe("starting");
  });
});

describe("a model whose file is not there", () => {
  /** `a` is ready, `b` absent and wanted. */
  function wanted(): { world: World; other: number } {
    const world = with1("a", new World(rulesOf(two)));
    world.absent.add("b");
    return { world, other: world.request("b") };
  }

  it("takes nobody's room until it is", () => {
    const { world, other } = wanted();
    expect([...world.fetching]).toEqual(["b"]);
    expect(world.engines).toEqual(new Map([["a", "ready"]]));
    const late = world.request("a");
    expect(world.outcome(late)).toBe("running");
    world.fetched("b");
    expect(world.outcome(world.request("a"))).toBe("waiting");
    world.leave(late);
    world.stopped("a");
    world.started("b");
    expect(world.outcome(other)).toBe("running");
  });

  it("is fetched once, however many wait", () => {
    const { world } = wanted();
    world.request("b");
    expect(world.scheduler.view("b")).toMatchObject({ phase: "stopped", fetching: true, waiting: 2 });
    expect([...world.fetching]).toEqual(["b"]);
  });

  it("is refused to all who wait if it can't be fetched, and nothing was stopped for it", () => {
    const { world, other } = wanted();
    world.fetchFailed("b");
    expect(world.outcome(other)).toBe("start-failed");
    expect(world.outcome(world.request("a"))).toBe("running");
    expect(world.outcome(world.request("b"))).toBe("start-failed");
    world.tick(1000);
    expect(world.outcome(world.request("b"))).toBe("waiting");
    expect([...world.fetching]).toEqual(["b"]);
  });

  it("is not started if nobody waits any more once it is", () => {
    const { world, other } = wanted();
    world.leave(other);
    world.fetched("b");
    expect(world.engines).toEqual(new Map([["a", "ready"]]));
  });

  it("is told of to whoever waited in vain", () => {
    const { world, other } = wanted();
    world.tick(1e6);
    expect(world.outcome(other)).toBe("queue-timeout");
    world.fetched("b");
    expect(world.engines).toEqual(new Map([["a", "ready"]]));
  });
});

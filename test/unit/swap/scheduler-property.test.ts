/** Whatever happens in whatever order: the rules that World checks hold, and once the engines behave, everybody is served. */
import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { rulesOf, World } from "./world.ts";

const NAMES = ["a", "b", "c", "d", "e"];

const rules = fc
  .record({
    groups: fc.array(fc.constantFrom("g", "h", "default"), { minLength: 5, maxLength: 5 }),
    pinned: fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
    ttl: fc.array(fc.constantFrom(0, 500), { minLength: 5, maxLength: 5 }),
    most: fc.array(fc.constantFrom(0, 0, 1, 2), { minLength: 5, maxLength: 5 }),
    g: fc.record({ swap: fc.boolean(), exclusive: fc.boolean(), persistent: fc.boolean() }),
    h: fc.record({ swap: fc.boolean(), exclusive: fc.boolean(), persistent: fc.boolean() }),
    residencyMs: fc.constantFrom(0, 100, 1000),
    queueMax: fc.constantFrom(3, 1000),
    queueMs: fc.constantFrom(700, 1e9),
  })
  .map(({ groups, pinned, ttl, most, g, h, ...rest }) =>
    rulesOf(
      Object.fromEntries(
        NAMES.map((name, i) => [
          name,
          { group: groups[i], pinned: pinned[i] && i < 2, ttlMs: ttl[i], maxRunning: most[i] },
        ]),
      ),
      { groups: { g, h }, ...rest },
    ),
  );

type Step = { kind: string; pick: number; ms: number };

const steps = fc.array(
  fc.record({
    kind: fc.constantFrom(
      "request",
      "request",
      "request",
      "leave",
      "leave",
      "started",
      "started",
      "stopped",
      "stopped",
      "start-failed",
      "no-room",
      "died",
      "tick",
      "unload",
      "changed",
      "removed",
      "absent",
      "fetched",
      "fetch-failed",
    ),
    pick: fc.nat(1000),
    ms: fc.nat(400),
  }),
  { maxLength: 120 },
);

function play(world: World, { kind, pick, ms }: Step): void {
  const model = NAMES[pick % NAMES.length];
  const inPhase = (phase: string): string | undefined => {
    const names = [...world.engines].filter(([, state]) => state === phase).map(([name]) => name);
    return names[pick % Math.max(1, names.length)];
  };
  switch (kind) {
    case "request":
      world.request(model, { quiet: pick % 3 === 0 });
      return;
    case "leave": {
      const open = [...world.requests].filter(
        ([, { outcome }]) => outcome === "waiting" || outcome === "running",
      );
      if (open.length > 0) world.leave(open[pick % open.length][0]);
      return;
    }
    case "started":
    case "start-failed":
    case "no-room": {
      const name = inPhase("starting");
      if (name === undefined) return;
      if (kind === "started") world.started(name);
      else world.failed(name, kind);
      return;
    }
    case "died": {
      const name = inPhase("ready");
      if (name === undefined) return;
      // its requests break off before it is known that it died, or after
      if (pick % 2 === 0) for (const id of world.running(name)) world.leave(id);
      if (world.engines.get(name) === "ready") world.failed(name, "died");
      return;
    }
    case "stopped": {
      const name = inPhase("stopping");
      if (name !== undefined) world.stopped(name);
      return;
    }
    case "tick":
      world.tick(ms);
      return;
    case "absent":
      if (!world.engines.has(model)) world.absent.add(model);
      return;
    case "fetched":
    case "fetch-failed": {
      const name = [...world.fetching][pick % Math.max(1, world.fetching.size)];
      if (name === undefined) return;
      if (kind === "fetched") world.fetched(name);
      else world.fetchFailed(name);
      return;
    }
    case "unload":
      world.send({ type: "unload", model });
      return;
    case "changed":
      world.send({ type: "rules", rules: world.rules, changed: [model] });
      return;
    case "removed": {
      const models = new Map([...world.rules.models].filter(([name]) => name !== model));
      world.send({ type: "rules", rules: { ...world.rules, models }, changed: [] });
      return;
    }
  }
}

/** Lets the engines do what they are told and every request end, in order, until nobody waits. */
function settle(world: World): void {
  for (let round = 0; round < 300 && world.waiting().length > 0; round++) {
    for (const [name, state] of [...world.engines]) {
      if (state === "starting") world.started(name);
      else if (state === "stopping") world.stopped(name);
    }
    for (const name of [...world.fetching]) world.fetched(name);
    for (const name of NAMES) for (const id of world.running(name)) world.leave(id);
    if (Number.isFinite(world.scheduler.wakeAt)) world.tick(Math.max(0, world.scheduler.wakeAt - world.now));
  }
}

describe("the scheduler, whatever happens", () => {
  it("keeps the rules and serves everybody in the end", () => {
    fc.assert(
      fc.property(rules, steps, (given, list) => {
        const world = new World(given);
        for (const step of list) play(world, step);
        settle(world);
        expect(world.waiting()).toEqual([]);
        for (const name of NAMES) for (const id of world.running(name)) world.leave(id);
        for (const name of NAMES) expect(world.scheduler.view(name)?.running ?? 0).toBe(0);
        expect(world.scheduler.waiting).toBe(0);
      }),
      { numRuns: 150, seed: 1 },
    );
  });

  it("serves a waiting request before those that came later to the models it waits for", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("a", "b", "c"), { minLength: 2, maxLength: 10 }), (order) => {
        const world = new World(rulesOf({ a: {}, b: {}, c: {} }));
        const ids = order.map((model) => world.request(model));
        // a stream of newcomers for whichever model runs may not hold up those who wait
        for (let round = 0; ids.some((id) => world.outcome(id) === "waiting"); round++) {
          if (round > 20 * ids.length)
            throw new Error(`still waiting: ${ids.filter((id) => world.outcome(id) === "waiting")}`);
          for (const [name, state] of [...world.engines]) {
            if (state === "starting") world.started(name);
            else if (state === "stopping") world.stopped(name);
            else world.request(name);
          }
          const running = ["a", "b", "c"].flatMap((name) => world.running(name));
          if (running.length > 0) world.leave(running[0]);
        }
      }),
      { numRuns: 50, seed: 2 },
    );
  });
});

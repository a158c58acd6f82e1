import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { DraftLinkClient } from "../../../src/link/client.ts";
import { LatencyRing } from "../../../src/link/latency.ts";
import { silentLog } from "../../../src/log.ts";
import { FakeDrafter } from "./support/fake-drafter.ts";
import { FakeEngine } from "./support/fake-engine.ts";
import { beginMap, frame, helloMap, i32, slotMap, stepMap } from "./support/wire.ts";

describe("DraftLinkClient", () => {
  let engine: FakeEngine;
  let drafters: FakeDrafter[];
  let states: string[];
  let draftLatency: LatencyRing;
  let linkLatency: LatencyRing;
  let exchangeLatency: LatencyRing;
  let client: DraftLinkClient;

  beforeEach(async () => {
    engine = new FakeEngine();
    drafters = [];
    states = [];
    draftLatency = new LatencyRing();
    linkLatency = new LatencyRing();
    exchangeLatency = new LatencyRing();
    client = new DraftLinkClient({
      socketPath: engine.path,
      topK: 12,
      createDrafter: (info) => {
        drafters.push(new FakeDrafter(info));
        return drafters[drafters.length - 1];
      },
      log: silentLog(),
      draftLatency,
      linkLatency,
      exchangeLatency,
      onState: (state) => states.push(state),
      backoff: { firstMs: 1, maxMs: 20 },
    });
    await engine.listen();
  });

  afterEach(async () => {
    client.stop();
    await engine.close();
  });

  async function greet(): Promise<void> {
    client.start();
    await engine.frame("hello");
    engine.send(helloMap);
  }

  it("says hello at once, with the successors that it wants", async () => {
    client.start();
    expect(await engine.frame("hello")).toEqual({ type: "hello", version: 1, top_k: 12 });
    expect(client.state).toBe("connecting");
  });

  it("sends every draft whole to an engine that does not read for a while", async () => {
    const STEPS = 4000;
    await greet();
    engine.send(beginMap);
    const { peer } = engine;
    peer?.pause();
    for (let seq = 1; seq <= STEPS; seq++) {
      const last = seq % 900;
      engine.send(stepMap(seq, { slots: [{ ...slotMap, accepted: i32(11, last) }] }));
    }
    const steps = () => drafters[0]?.stats().steps ?? 0;
    while (steps() < STEPS) await new Promise((resolve) => setTimeout(resolve, 5));
    peer?.resume();
    await engine.frame("draft", STEPS - 1);
    const drafts = engine.received.filter(({ type }) => type === "draft");
    expect(drafts).toEqual(
      Array.from({ length: STEPS }, (_, i) => ({
        type: "draft",
        seq: i + 1,
        slots: [{ slot: 0, tokens: i32(((i + 1) % 900) + 1), parents: i32(-1) }],
      })),
    );
  });

  it("hands begin, step and end to the drafter and answers what is asked", async () => {
    await greet();
    engine.send(beginMap, stepMap(1), stepMap(2, { ask: false }), {
      type: "end",
      slot: 0,
      id: 7,
      reason: "eos",
    });
    engine.send(stepMap(3));
    expect(await engine.frame("draft", 1)).toMatchObject({ seq: 3 });
    expect(engine.received.slice(1)).toEqual([
      { type: "draft", seq: 1, slots: [{ slot: 0, tokens: i32(13), parents: i32(-1) }] },
      { type: "draft", seq: 3, slots: [{ slot: 0, tokens: i32(13), parents: i32(-1) }] },
    ]);
    expect(drafters[0].calls).toEqual([
      "begin 0 7 [1,2,3]",
      "observe [11,12]",
      "draft",
      "observe [11,12]",
      "end 0 7 eos",
      "observe [11,12]",
      "draft",
    ]);
    expect(states).toEqual(["connecting", "connected"]);
  });

  it("answers a step that came in single bytes", async () => {
    await greet();
    for (const byte of frame(stepMap(5))) engine.raw(Buffer.of(byte));
    expect(await engine.frame("draft")).toMatchObject({ seq: 5 });
  });

  it("measures what a reply took, and the link's part of it", async () => {
    await greet();
    expect(draftLatency.quantiles().p50).toBeNull();
    engine.send(stepMap(1));
    await engine.frame("draft");
    engine.send(stepMap(2));
    await engine.frame("draft", 1);
    const draft = draftLatency.quantiles().p50 ?? Number.NaN;
    const link = linkLatency.quantiles().p50 ?? Number.NaN;
    expect(link).toBeGreaterThan(0);
    expect(draft).toBeGreaterThanOrEqual(link);
  });

  it("keeps what the engine says that an exchange took, where it says so", async () => {
    await greet();
    for (const [i, spent] of [{}, { spent_us: 0 }, { spent_us: 700 }].entries()) {
      engine.send({ ...stepMap(i + 1), ...spent });
      await engine.frame("draft", i);
    }
    expect(exchangeLatency.quantiles()).toEqual({ p50: 700, p99: 700 });
  });

  it("waits for an engine that is not there yet", async () => {
    await engine.vanish();
    client.start();
    expect(client.state).toBe("connecting");
    await engine.listen();
    expect(await engine.frame("hello")).toMatchObject({ version: 1 });
  });

  it("connects again after the engine vanished, ends what was active and keeps what was learnt", async () => {
    await greet();
    engine.send(beginMap, stepMap(1));
    await engine.frame("draft");
    await engine.vanish();
    await engine.listen();
    await engine.frame("hello", 1);
    engine.send(helloMap, { ...beginMap, id: 8 }, stepMap(1));
    await engine.frame("draft", 1);
    expect(drafters).toHaveLength(1);
    expect(drafters[0].calls).toEqual([
      "begin 0 7 [1,2,3]",
      "observe [11,12]",
      "draft",
      "end 0 7 error",
      "begin 0 8 [1,2,3]",
      "observe [11,12]",
      "draft",
    ]);
    expect(states).toEqual(["connecting", "connected", "connecting", "connected"]);
  });

  it("takes a new drafter when another vocabulary says hello", async () => {
    await greet();
    engine.send(stepMap(1));
    await engine.frame("draft");
    await engine.vanish();
    await engine.listen();
    await engine.frame("hello", 1);
    engine.send({ ...helloMap, vocab_hash: "fedcba9876543210" }, stepMap(1));
    await engine.frame("draft", 1);
    expect(drafters.map((drafter) => drafter.info.vocabHash)).toEqual([
      "0123456789abcdef",
      "fedcba9876543210",
    ]);
  });

  it.each([
    ["another version", frame({ ...helloMap, version: 2 }), "version"],
    ["garbage", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), "too_large"],
    ["an empty frame", Buffer.alloc(4), "too_large"],
    ["an oversized frame", Buffer.of(1, 0, 0, 1), "too_large"],
    ["a frame that is not MessagePack", Buffer.of(1, 0, 0, 0, 0xc1), "bad_frame"],
  ])("answers %s with an error frame, closes and tries again", async (_name, data, code) => {
    client.start();
    await engine.frame("hello");
    engine.raw(data);
    expect(await engine.frame("error")).toMatchObject({ code });
    await engine.frame("hello", 1);
    expect(engine.connections).toBe(2);
    expect(drafters).toHaveLength(0);
  });

  it("gives the engine no draft from behind a bad frame", async () => {
    await greet();
    engine.raw(Buffer.concat([frame({ type: "dance" }), frame(stepMap(1))]));
    await engine.frame("hello", 1);
    expect(engine.received.map((map) => map.type)).toEqual(["hello", "error", "hello"]);
    expect(drafters[0].calls).toEqual([]);
  });

  it("counts late and refused drafts and goes on", async () => {
    await greet();
    engine.send(
      { type: "error", code: "late", message: "seq 1, awaited 2" },
      { type: "error", code: "bad_draft", message: "parent out of range", slot: 0 },
      { type: "error", code: "no_slot", message: "slot 1 is idle", slot: 1 },
      stepMap(2),
    );
    await engine.frame("draft");
    expect(client.counters).toEqual({ connections: 1, late: 1, refused: 1 });
    expect(client.state).toBe("connected");
  });

  it("ends the connection when it is stopped, and does not come back", async () => {
    await greet();
    engine.send(beginMap, stepMap(1));
    await engine.frame("draft");
    client.stop();
    await engine.until(() => engine.peer === undefined);
    expect(client.state).toBe("off");
    expect(drafters[0].calls.at(-1)).toBe("end 0 7 error");
    expect(engine.connections).toBe(1);
  });
});

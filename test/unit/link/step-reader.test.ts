import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { pack } from "msgpackr";
import type { EngineInfo } from "../../../src/drafter/draft.ts";
import { EngineFrameDecoder } from "../../../src/link/frames.ts";
import { StepReader } from "../../../src/link/step-reader.ts";
import { asEngine, f32, helloMap, i32, slotMap, stepMap } from "./support/wire.ts";

function hello(): EngineInfo {
  const frame = new EngineFrameDecoder().decode(pack(helloMap));
  if (frame.type !== "hello") throw new Error("no hello");
  return frame.info;
}

function read(body: Buffer): unknown {
  return new StepReader(hello()).read(body, 0, body.length);
}

/** What the general decoder makes of it: for a key that it does not know the reader leaves the frame to it. */
function general(map: Record<string, unknown>): unknown {
  const decoder = new EngineFrameDecoder();
  decoder.decode(pack(helloMap));
  return decoder.decode(pack({ unknown: 1, ...map }));
}

/** A tree of 1 … 6 nodes in which a path was accepted. */
const slots = fc
  .record({
    slot: fc.nat(1),
    nodes: fc.array(fc.nat(999), { minLength: 1, maxLength: 6 }),
    parents: fc.array(fc.nat(), { minLength: 6, maxLength: 6 }),
    last: fc.nat(),
    sampled: fc.nat(999),
    k: fc.nat(3),
    room: fc.nat(300),
    draft: fc.boolean(),
  })
  .map(({ slot, nodes, parents, last, sampled, k, room, draft }) => {
    const above = nodes.map((_, i) => (i === 0 ? -1 : parents[i] % i));
    const path: number[] = [];
    for (let at = last % nodes.length; at >= 0; at = above[at]) path.unshift(at);
    const ids = nodes.flatMap((node) => Array.from({ length: k }, (_, j) => (node + j) % 1000));
    return {
      slot,
      accepted: i32(...path.slice(1).map((node) => nodes[node]), sampled),
      nodes: i32(...nodes),
      parents: i32(...above),
      path: i32(...path),
      k,
      ids: i32(...ids),
      probs: f32(...ids.map((id) => id / 1000)),
      room,
      draft,
    };
  });

const steps = fc
  .record({
    seq: fc.nat(2 ** 31 - 1),
    us: fc.oneof(fc.nat(200), fc.nat(2 ** 31 - 1)),
    n_batch: fc.nat(300),
    spent_us: fc.nat(70_000),
    ask: fc.boolean(),
    budget_us: fc.nat(20_000),
    slots: fc.array(slots, { maxLength: 2 }),
  })
  .map((step) => ({ type: "step", ...step }));

describe("StepReader", () => {
  it("reads what the general decoder reads, written as engines do", () => {
    const reader = new StepReader(hello());
    fc.assert(
      fc.property(steps, fc.nat(9), (step, shift) => {
        const body = asEngine(step);
        const moved = Buffer.concat([Buffer.alloc(shift), body, Buffer.alloc(3)]);
        const frame = reader.read(moved, shift, shift + body.length);
        expect(frame).toBeDefined();
        expect(frame).toEqual(general(step));
      }),
    );
  });

  it("reads what msgpackr writes", () => {
    fc.assert(
      fc.property(steps, (step) => {
        const body = pack(step);
        expect(new StepReader(hello()).read(body, 0, body.length)).toEqual(general(step));
      }),
    );
  });

  it("keeps nothing of the bytes, and no array from one step to a smaller one", () => {
    const reader = new StepReader(hello());
    const large = asEngine(stepMap(1));
    const first = reader.read(large, 0, large.length);
    large.fill(0xff);
    expect(first).toEqual(general(stepMap(1)));
    const small = asEngine(
      stepMap(2, {
        slots: [
          {
            ...slotMap,
            nodes: i32(3),
            parents: i32(-1),
            path: i32(0),
            accepted: i32(7),
            ids: i32(1, 2),
            probs: f32(0.5, 0.5),
          },
        ],
      }),
    );
    const second = reader.read(small, 0, small.length);
    expect(second?.step.slots).toHaveLength(1);
    expect(second?.step.slots[0]).toMatchObject({ nodes: Int32Array.of(3), ids: Int32Array.of(1, 2) });
  });

  it("takes the time spent for 0 where a frame does not tell", () => {
    const reader = new StepReader(hello());
    const told = asEngine(stepMap(1, { spent_us: 5 }));
    const untold = asEngine(stepMap(2));
    expect(reader.read(told, 0, told.length)?.step.spentUs).toBe(5);
    expect(reader.read(untold, 0, untold.length)?.step.spentUs).toBe(0);
  });

  it("hands out the same arrays for steps of the same size", () => {
    const reader = new StepReader(hello());
    const body = asEngine(stepMap(1));
    const { nodes, probs } = reader.read(body, 0, body.length)?.step.slots[0] ?? {};
    const again = reader.read(body, 0, body.length)?.step.slots[0];
    expect(again?.nodes).toBe(nodes);
    expect(again?.probs).toBe(probs);
  });

  it.each([
    ["another frame", { type: "end", slot: 0, id: 7, reason: "eos" }],
    ["an unknown key", stepMap(1, { extra: 1 })],
    ["a missing key", Object.fromEntries(Object.entries(stepMap(1)).filter(([key]) => key !== "us"))],
    ["an unknown key of a slot", stepMap(1, { slots: [{ ...slotMap, extra: 1 }] })],
    ["a missing key of a slot", stepMap(1, { slots: [{ slot: 0 }] })],
    ["a negative number", stepMap(1, { us: -1 })],
    ["a number with a fraction", stepMap(1, { us: 1.5 })],
    ["a number of more than 31 bits", stepMap(1, { us: 2 ** 31 })],
    ["a number for a flag", stepMap(1, { ask: 1 })],
    ["a slot beyond n_slots", stepMap(1, { slots: [{ ...slotMap, slot: 2 }] })],
    ["more slots than there are", stepMap(1, { slots: [slotMap, slotMap, slotMap] })],
    ["half a number", stepMap(1, { slots: [{ ...slotMap, ids: Buffer.alloc(23) }] })],
    ["an array for a bin", stepMap(1, { slots: [{ ...slotMap, nodes: [3, 10, 11] }] })],
    ["a path that jumps", stepMap(1, { slots: [{ ...slotMap, path: i32(0, 3) }] })],
    ["a huge array", stepMap(1, { slots: [{ ...slotMap, ids: Buffer.alloc(2 ** 17) }] })],
  ])("leaves %s to the general decoder", (_name, map) => {
    expect(read(pack(map))).toBeUndefined();
  });

  it("leaves bytes after the map, and what is cut off anywhere, to the general decoder", () => {
    const body = asEngine(stepMap(1));
    expect(read(Buffer.concat([body, Buffer.alloc(1)]))).toBeUndefined();
    for (let length = 0; length < body.length; length++)
      expect(read(body.subarray(0, length))).toBeUndefined();
    // and reads nothing beyond the end that it was told
    for (let end = 0; end < body.length; end++)
      expect(new StepReader(hello()).read(body, 0, end)).toBeUndefined();
  });

  it("agrees with the general decoder on any damage", () => {
    const valid = asEngine(stepMap(1));
    let readable = 0;
    fc.assert(
      fc.property(fc.nat(valid.length - 1), fc.nat(255), (at, value) => {
        const body = Buffer.from(valid).fill(value, at, at + 1);
        const frame = read(body);
        if (frame === undefined) return;
        readable++;
        // the general decoder gets the same map with one more entry, which the reader does not know
        const longer = Buffer.concat([body, pack("unknown"), pack(1)]);
        longer[0]++;
        const decoder = new EngineFrameDecoder();
        decoder.decode(pack(helloMap));
        expect(decoder.decode(longer)).toEqual(frame);
      }),
      { numRuns: 5000 },
    );
    expect(readable).toBeGreaterThan(100);
  });
});

import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { pack, unpack } from "msgpackr";
import { EngineFrameDecoder, LinkFrameError, PeerFrameEncoder } from "../../../src/link/frames.ts";
import { beginMap, bytes, f32, helloMap, i32, slotMap, stepMap } from "./support/wire.ts";

function greeted(): EngineFrameDecoder {
  const decoder = new EngineFrameDecoder();
  decoder.decode(pack(helloMap));
  return decoder;
}

/** `map` as MessagePack, with the bytes of `raw` for the value of `at`. */
function withRaw(map: object, at: string, raw: Buffer): Buffer {
  const entries = Object.entries(map);
  const parts = entries.map(([key, value]) => Buffer.concat([pack(key), key === at ? raw : pack(value)]));
  return Buffer.concat([Buffer.of(0x80 | entries.length), ...parts]);
}

function withRawAnywhere(map: object, raw: Buffer): Buffer[] {
  return Object.keys(map).map((key) => withRaw(map, key, raw));
}

function faultOf(act: () => unknown): { fault: string; message: string } {
  try {
    act();
  } catch (error) {
    if (error instanceof LinkFrameError) return { fault: error.fault, message: error.message };
    throw error;
  }
  throw new Error("no fault was reported");
}

describe("EngineFrameDecoder", () => {
  it("keeps of a hello nothing that the next frame overwrites, wherever its arrays lie", () => {
    for (let length = 1; length <= 4; length++) {
      const map = {
        ...helloMap,
        model: "m".repeat(length),
        tested_n: i32(2, 3),
        exact_n: i32(3),
        near_tie: 0,
      };
      const body = pack(map);
      const frame = new EngineFrameDecoder().decode(body);
      const before = structuredClone(frame);
      body.fill(0xff);
      expect(frame).toEqual(before);
    }
  });

  it("reads what hello tells of the model", () => {
    const frame = new EngineFrameDecoder().decode(pack(helloMap));
    expect(frame).toEqual({
      type: "hello",
      info: {
        model: "toy",
        nVocab: 1000,
        vocabHash: "0123456789abcdef",
        nSlots: 2,
        maxNodes: 16,
        tree: true,
        maxChain: 0,
        topK: 2,
        costTokens: Int32Array.of(1, 2, 4),
        costUs: Float32Array.of(1000, 1100, 1300),
      },
    });
  });

  it("reads what hello says of batches, where it does", () => {
    const map = { ...helloMap, tested_n: i32(2, 3, 4), exact_n: i32(2, 3), near_tie: 0.25 };
    expect(new EngineFrameDecoder().decode(pack(map))).toMatchObject({
      info: { exactness: { tested: [2, 3, 4], exact: [2, 3], near_tie: 0.25 } },
    });
    expect(() => new EngineFrameDecoder().decode(pack({ ...map, exact_n: "all" }))).toThrow(/hello\.exact_n/);
  });

  it("reads begin, step, end and error", () => {
    const decoder = greeted();
    expect(decoder.decode(pack(beginMap))).toEqual({
      type: "begin",
      request: {
        slot: 0,
        id: 7,
        scope: "",
        keep: 0,
        tokens: Int32Array.of(1, 2, 3),
        sampling: { greedy: true, temperature: 0, grammar: false, draft: true },
      },
    });
    expect(decoder.decode(pack(stepMap(9, { spent_us: 321 })))).toEqual({
      type: "step",
      seq: 9,
      ask: true,
      budgetUs: 5000,
      step: {
        spentUs: 321,
        decodeUs: 1234,
        nBatch: 3,
        slots: [
          {
            slot: 0,
            accepted: Int32Array.of(11, 12),
            nodes: Int32Array.of(3, 10, 11),
            parents: Int32Array.of(-1, 0, 0),
            path: Int32Array.of(0, 2),
            k: 2,
            ids: Int32Array.of(11, 10, 5, 6, 12, 13),
            probs: Float32Array.of(0.5, 0.25, 0.5, 0.25, 0.75, 0.125),
            room: 20,
            draft: true,
          },
        ],
      },
    });
    expect(decoder.decode(pack({ type: "end", slot: 1, id: 7, reason: "eos", extra: 1 }))).toEqual({
      type: "end",
      slot: 1,
      id: 7,
      reason: "eos",
    });
    expect(decoder.decode(pack({ type: "error", code: "late", message: "m", slot: 1 }))).toEqual({
      type: "error",
      code: "late",
      message: "m",
      slot: 1,
    });
  });

  it("reads 64-bit integers as numbers", () => {
    const frame = greeted().decode(pack(stepMap(1, { us: 2n ** 40n, seq: 5_000_000n })));
    expect(frame).toMatchObject({ seq: 5_000_000, step: { decodeUs: 2 ** 40, spentUs: 0 } });
  });

  it("reads arrays wherever they lie in the buffer", () => {
    const decoder = greeted();
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 7 }),
        fc.array(fc.integer({ min: 0, max: 999 }), { maxLength: 40 }),
        (shift, tokens) => {
          const body = pack({ ...beginMap, tokens: i32(...tokens) });
          const moved = Buffer.concat([Buffer.alloc(shift), body]).subarray(shift);
          const frame = decoder.decode(moved);
          expect(frame.type === "begin" && [...frame.request.tokens]).toEqual(tokens);
        },
      ),
    );
  });

  it("tells another version apart from a bad frame", () => {
    const fault = faultOf(() => new EngineFrameDecoder().decode(pack({ type: "hello", version: 2 })));
    expect(fault).toMatchObject({ fault: "version", message: expect.stringContaining("version 2") });
  });

  it.each([
    ["a frame before hello", () => new EngineFrameDecoder().decode(pack(beginMap)), 'came before "hello"'],
    ["an unknown type", () => greeted().decode(pack({ type: "dance" })), 'unknown type "dance"'],
    ["no map", () => greeted().decode(pack([1, 2])), "frame is array of 2, expected a map"],
    ["cut-off MessagePack", () => greeted().decode(pack(beginMap).subarray(0, 20)), "not MessagePack"],
    [
      "bytes after the map",
      () => greeted().decode(Buffer.concat([pack(beginMap), i32(1)])),
      "not MessagePack",
    ],
    ["a missing key", () => greeted().decode(pack({ ...beginMap, id: undefined })), "begin.id"],
    [
      "a slot beyond n_slots",
      () => greeted().decode(pack({ ...beginMap, slot: 2 })),
      "begin.slot is 2, expected an integer from 0 to 1",
    ],
    [
      "a number of a step that is none",
      () => greeted().decode(pack(stepMap(2 ** 31))),
      "step.seq is 2147483648, expected an integer from 0 to 2147483647",
    ],
    [
      "a token beyond the vocabulary",
      () => greeted().decode(pack({ ...beginMap, tokens: i32(1, 1000) })),
      "begin.tokens[1] = 1000 is out of range (0 to 999)",
    ],
    [
      "an array that is no multiple of four bytes",
      () => greeted().decode(pack({ ...beginMap, tokens: Buffer.alloc(7) })),
      "begin.tokens is bin of 7 bytes",
    ],
    [
      "a hash that is none",
      () => new EngineFrameDecoder().decode(pack({ ...helloMap, vocab_hash: "xyz" })),
      "hello.vocab_hash",
    ],
    [
      "costs that do not ascend",
      () => new EngineFrameDecoder().decode(pack({ ...helloMap, cost_n: i32(1, 4, 2) })),
      "hello.cost_n[2] = 2 does not ascend",
    ],
  ])("names %s", (_name, act, message) => {
    expect(faultOf(act)).toMatchObject({ fault: "bad_frame", message: expect.stringContaining(message) });
  });

  it.each([
    ["no nodes", { nodes: i32(), parents: i32() }, "nodes is empty"],
    ["no accepted token", { accepted: i32(), path: i32() }, "accepted is empty"],
    ["fewer parents", { parents: i32(-1, 0) }, "parents has 2 entries, expected 3 (as many as nodes)"],
    ["a cycle", { parents: i32(-1, 2, 1) }, "parents[1] = 2 is not an earlier node"],
    ["a second root", { parents: i32(-1, -1, 0) }, "parents[1] = -1 is not an earlier node"],
    ["a path that jumps", { path: i32(0, 3) }, "path[1] = 3 is no child of node 0"],
    ["a path unlike the text", { path: i32(0, 1) }, "accepted[0] = 11, but path says 10"],
    ["too few successors", { ids: i32(1, 2) }, "ids has 2 entries, expected 6 (nodes times k)"],
    ["a negative successor", { ids: i32(11, 10, 5, 6, 12, -1) }, "ids[5] = -1 is out of range"],
    ["a NaN", { probs: f32(0.5, Number.NaN, 0, 0, 0, 0) }, "probs[1] = NaN is no probability"],
    ["a count for a flag", { draft: 1 }, "draft is 1, expected true or false"],
  ])("names a slot with %s", (_name, change, message) => {
    const act = () => greeted().decode(pack(stepMap(1, { slots: [{ ...slotMap, ...change }] })));
    expect(faultOf(act)).toMatchObject({
      fault: "bad_frame",
      message: expect.stringContaining(`step.slots[0].${message}`),
    });
  });

  // msgpackr makes a bigint, an Error, a Set, a Date, a RegExp or a typed array of some of them
  it.each([0x00, 0x20, 0x42, 0x62, 0x65, 0x69, 0x70, 0x72, 0x73, 0x74, 0x78, 0xff])(
    "answers extension type %i, at any place, with a frame or a LinkFrameError",
    (type) => {
      const extensions = [
        Buffer.of(0xd4, type, 0),
        Buffer.of(0xd4, type, 0xff),
        Buffer.of(0xd5, type, 0x92, 0xa0),
        Buffer.of(0xd6, type, 0, 0, 0, 0),
        Buffer.of(0xd7, type, 1, 2, 3, 4, 5, 6, 7, 8),
        Buffer.of(0xd8, type, ...new Array<number>(16).fill(0x91)),
        Buffer.of(0xc7, 0, type),
        Buffer.of(0xc7, 200, type, ...new Array<number>(200).fill(0xff)),
      ];
      const bodies = extensions.flatMap((extension) => [
        extension,
        ...[helloMap, beginMap, stepMap(1)].flatMap((map) => withRawAnywhere(map, extension)),
        ...withRawAnywhere(slotMap, extension).map((slot) =>
          withRaw(stepMap(1), "slots", Buffer.concat([Buffer.of(0x91), slot])),
        ),
      ]);
      const faults = bodies.filter((body) => {
        const decoder = greeted();
        try {
          decoder.decode(body);
          return false;
        } catch (error) {
          expect(error).toBeInstanceOf(LinkFrameError);
          return true;
        }
      });
      // some fields may be missing, and a typed array of bytes is a `bin`
      expect(faults.length).toBeGreaterThan(0.9 * bodies.length);
    },
  );

  it("answers any bytes with a frame or a LinkFrameError, never another error", () => {
    const decoder = greeted();
    const valid = pack(stepMap(1));
    const damaged = fc
      .tuple(fc.nat(valid.length - 1), fc.integer({ min: 0, max: 255 }))
      .map(([at, value]) => Buffer.from(valid).fill(value, at, at + 1));
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), damaged), (body) => {
        try {
          expect(decoder.decode(Buffer.from(body)).type).toMatch(/^(hello|begin|step|end|error)$/);
        } catch (error) {
          expect(error).toBeInstanceOf(LinkFrameError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("PeerFrameEncoder", () => {
  const encoder = new PeerFrameEncoder();

  it("writes the length in front of a plain map", () => {
    const hello = encoder.hello(12);
    expect(hello.readUInt32LE(0)).toBe(hello.length - 4);
    expect(unpack(hello.subarray(4))).toEqual({ type: "hello", version: 1, top_k: 12 });
  });

  it("writes drafts as little-endian bin and leaves plain slots out", () => {
    const pool = Int32Array.of(99, 5, 6, -1, 0);
    const draft = encoder.draft(3, [
      { slot: 0, tokens: pool.subarray(1, 3), parents: pool.subarray(3, 5), sleep: 0 },
      { slot: 1, tokens: new Int32Array(0), parents: new Int32Array(0), sleep: 0 },
      { slot: 2, tokens: new Int32Array(0), parents: new Int32Array(0), sleep: 9 },
    ]);
    const empty = bytes(new Int32Array(0));
    expect(unpack(draft.subarray(4))).toEqual({
      type: "draft",
      seq: 3,
      slots: [
        { slot: 0, tokens: i32(5, 6), parents: i32(-1, 0) },
        { slot: 2, tokens: empty, parents: empty, sleep: 9 },
      ],
    });
  });

  it("leaves a draft that was kept as it is when later ones are written", () => {
    const first = encoder.draft(1, []);
    const copy = Buffer.from(first);
    encoder.keepDraft();
    for (let seq = 2; seq < 500; seq++) encoder.draft(seq, []);
    expect(first.equals(copy)).toBe(true);
  });

  it("writes any drafts as MessagePack that others read", () => {
    const slot = fc.record({
      slot: fc.nat(70_000),
      nodes: fc.array(fc.record({ token: fc.nat(2 ** 31 - 1), parent: fc.integer({ min: -1, max: 300 }) })),
      sleep: fc.nat(3000),
    });
    fc.assert(
      fc.property(fc.nat(2 ** 31 - 1), fc.array(slot, { maxLength: 40 }), (seq, slots) => {
        const frame = encoder.draft(
          seq,
          slots.map(({ slot, nodes, sleep }) => ({
            slot,
            tokens: Int32Array.from(nodes, ({ token }) => token),
            parents: Int32Array.from(nodes, ({ parent }) => parent),
            sleep,
          })),
        );
        expect(frame.readUInt32LE(0)).toBe(frame.length - 4);
        expect(unpack(frame.subarray(4))).toEqual({
          type: "draft",
          seq,
          slots: slots
            .filter(({ nodes, sleep }) => nodes.length > 0 || sleep > 0)
            .map(({ slot, nodes, sleep }) => ({
              slot,
              tokens: i32(...nodes.map(({ token }) => token)),
              parents: i32(...nodes.map(({ parent }) => parent)),
              ...(sleep > 0 ? { sleep: Math.min(sleep, 1024) } : {}),
            })),
        });
      }),
    );
  });

  it("refuses a draft over the engine's limit", () => {
    const tokens = new Int32Array(200_000);
    expect(faultOf(() => encoder.draft(1, [{ slot: 0, tokens, parents: tokens, sleep: 0 }])).fault).toBe(
      "bad_draft",
    );
  });
});

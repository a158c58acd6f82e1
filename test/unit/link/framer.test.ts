import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { Framer, type OnBody } from "../../../src/link/framer.ts";
import { LinkFrameError } from "../../../src/link/frames.ts";
import { frame, stepMap } from "./support/wire.ts";

function stream(bodies: readonly Uint8Array[]): Buffer {
  const parts: Buffer[] = [];
  for (const body of bodies) {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(body.length);
    parts.push(header, Buffer.from(body));
  }
  return Buffer.concat(parts);
}

/** Keeps copies of the bodies. */
function into(bodies: Buffer[]): OnBody {
  return (bytes, start, end) => bodies.push(Buffer.from(bytes.subarray(start, end)));
}

describe("Framer", () => {
  it("puts two frames together when they are cut at every byte boundary", () => {
    const data = Buffer.concat([frame(stepMap(1)), frame(stepMap(2))]);
    const first = data.readUInt32LE(0);
    for (let cut = 0; cut <= data.length; cut++) {
      const bodies: Buffer[] = [];
      const framer = new Framer(1 << 20, into(bodies));
      framer.push(data.subarray(0, cut));
      framer.push(data.subarray(cut));
      expect(bodies).toHaveLength(2);
      expect(bodies[0].equals(data.subarray(4, 4 + first))).toBe(true);
      expect(bodies[1].equals(data.subarray(8 + first))).toBe(true);
    }
  });

  it("gives the same bodies however the stream is cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 60 }), { minLength: 1, maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 20 }),
        (expected, sizes) => {
          const data = stream(expected);
          const bodies: Buffer[] = [];
          const framer = new Framer(1000, into(bodies));
          for (let at = 0, i = 0; at < data.length; i++) {
            const size = sizes[i % sizes.length];
            // what lies behind the end does not count
            framer.push(
              Buffer.concat([data.subarray(at, at + size), Buffer.alloc(3, 1)]),
              Math.min(size, data.length - at),
            );
            at += size;
          }
          expect(bodies.map((body) => [...body])).toEqual(expected.map((body) => [...body]));
        },
      ),
    );
  });

  it("does not copy a body that lies whole in a chunk", () => {
    const data = stream([Uint8Array.of(1, 2, 3)]);
    let seen: Buffer | undefined;
    new Framer(10, (bytes, start, end) => {
      seen = bytes.subarray(start, end);
    }).push(data);
    expect(seen?.buffer).toBe(data.buffer);
    expect([...(seen ?? [])]).toEqual([1, 2, 3]);
  });

  it.each([
    ["0", 0],
    ["over the limit", 11],
  ])("refuses a length of %s before it takes any memory", (_name, length) => {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(length);
    const framer = new Framer(10, () => {});
    expect(() => framer.push(header)).toThrow(LinkFrameError);
    expect(() => new Framer(10, () => {}).push(header)).toThrow(`a frame of ${length} bytes`);
  });

  it("hands out nothing more once it is stopped, not even from the same chunk", () => {
    const bodies: number[] = [];
    const framer = new Framer(10, (bytes, start) => {
      bodies.push(bytes[start]);
      framer.stop();
    });
    framer.push(stream([Uint8Array.of(1), Uint8Array.of(2)]));
    framer.push(stream([Uint8Array.of(3)]));
    expect(bodies).toEqual([1]);
  });
});

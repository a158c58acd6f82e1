import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { GramCounter } from "../../../src/corpus/gram-counter.ts";

function drained(counter: GramCounter): Map<string, number> {
  const counts = new Map<string, number>();
  counter.drain((a, b, c, n) => counts.set(`${a} ${b} ${c}`, n));
  return counts;
}

describe("counting 3-grams in a table", () => {
  it("counts exactly what a map would count, however the keys collide", () => {
    const id = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.constantFrom(0x7fffffff, 262143, 65536));
    const gram = fc.tuple(id, id, id, fc.integer({ min: 1, max: 5 }));
    fc.assert(
      fc.property(fc.array(gram, { maxLength: 300 }), (grams) => {
        const counter = new GramCounter(9);
        const expected = new Map<string, number>();
        for (const [a, b, c, n] of grams) {
          counter.add(a, b, c, n);
          const key = `${a} ${b} ${c}`;
          expected.set(key, (expected.get(key) ?? 0) + n);
        }
        expect(counter.size).toBe(expected.size);
        expect(drained(counter)).toEqual(expected);
      }),
    );
  });

  it("says when it is full, and is empty again after it was drained", () => {
    const counter = new GramCounter(6);
    let added = 0;
    while (!counter.full) counter.add(added, added + 1, added++);
    expect(added).toBeLessThan(64);
    expect(added).toBeGreaterThan(32);
    expect(drained(counter).size).toBe(added);
    expect(counter.full).toBe(false);
    expect(drained(counter).size).toBe(0);
  });

  it("wants to be drained before a count could leave 32 bits", () => {
    const counter = new GramCounter(6);
    counter.add(1, 2, 3, 2 ** 30);
    expect(counter.full).toBe(true);
  });
});

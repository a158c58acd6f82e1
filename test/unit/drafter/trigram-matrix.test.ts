import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { MemoryBudget } from "../../../src/drafter/memory-budget.ts";
import { NONE, TrigramMatrix } from "../../../src/drafter/trigram-matrix.ts";

const WIDTH = 4;

function matrixOf(limit = 2 ** 20, chunkShift = 4): TrigramMatrix {
  return new TrigramMatrix(new MemoryBudget(limit), { width: WIDTH, chunkShift });
}

function learn(matrix: TrigramMatrix, a: number, b: number, entries: [number, number][], rate = 0.5): void {
  const ids = Int32Array.from(entries, (e) => e[0]);
  const probs = Float32Array.from(entries, (e) => e[1]);
  matrix.update(a, b, ids, probs, 0, entries.length, Float64Array.of(rate, rate, rate));
}

function rowOf(matrix: TrigramMatrix, a: number, b: number): Map<number, number> | undefined {
  const row = matrix.find(a, b);
  if (row < 0) return undefined;
  const ids = new Int32Array(matrix.width);
  const probs = new Float32Array(matrix.width);
  const n = matrix.read(row, ids, probs);
  return new Map(Array.from({ length: n }, (_, i) => [ids[i], probs[i]]));
}

describe("TrigramMatrix", () => {
  it("takes a new row's distribution as it is", () => {
    const matrix = matrixOf();
    learn(matrix, 1, 2, [
      [7, 0.75],
      [8, 0.25],
    ]);
    expect(rowOf(matrix, 1, 2)).toEqual(
      new Map([
        [7, 0.75],
        [8, 0.25],
      ]),
    );
  });

  it("moves a row towards what came last", () => {
    const matrix = matrixOf();
    learn(matrix, 1, 2, [[7, 1]]);
    learn(matrix, 1, 2, [[8, 1]], 0.75);
    expect(rowOf(matrix, 1, 2)).toEqual(
      new Map([
        [8, 0.75],
        [7, 0.25],
      ]),
    );
  });

  it("averages the first updates whatever the rate", () => {
    const matrix = matrixOf();
    for (const id of [7, 8, 9, 10]) learn(matrix, 1, 2, [[id, 1]], 0);
    for (const p of rowOf(matrix, 1, 2)!.values()) expect(p).toBeCloseTo(0.25, 5);
  });

  it("keeps only the likeliest entries of a full row", () => {
    const matrix = matrixOf();
    learn(matrix, 1, 2, [
      [1, 0.4],
      [2, 0.3],
      [3, 0.2],
      [4, 0.1],
    ]);
    learn(
      matrix,
      1,
      2,
      [
        [5, 0.6],
        [1, 0.4],
      ],
      0.5,
    );
    expect([...rowOf(matrix, 1, 2)!.keys()]).toEqual([1, 5, 2, 3]);
  });

  it("tells tri-gram, bi-gram and uni-gram rows apart", () => {
    const matrix = matrixOf();
    learn(matrix, 0, 0, [[1, 1]]);
    learn(matrix, NONE, 0, [[2, 1]]);
    learn(matrix, NONE, NONE, [[3, 1]]);
    expect([...rowOf(matrix, 0, 0)!.keys()]).toEqual([1]);
    expect([...rowOf(matrix, NONE, 0)!.keys()]).toEqual([2]);
    expect([...rowOf(matrix, NONE, NONE)!.keys()]).toEqual([3]);
    expect(matrix.find(0, NONE)).toBe(-1);
  });

  it("drops what fades below the least probability, and ignores probabilities that are not numbers", () => {
    const matrix = matrixOf();
    learn(matrix, 1, 2, [[7, 1]]);
    for (let i = 0; i < 40; i++) learn(matrix, 1, 2, [[8, 1]], 0.5);
    expect([...rowOf(matrix, 1, 2)!.keys()]).toEqual([8]);
    learn(matrix, 3, 4, [
      [1, 0.5],
      [2, Number.NaN],
    ]);
    learn(matrix, 3, 4, [[5, Number.POSITIVE_INFINITY]]);
    expect(matrix.checkIntegrity()).toEqual([]);
  });

  it("is small while it knows little, and grows to its limit and no further", () => {
    const budget = new MemoryBudget(128 * 1024);
    const matrix = new TrigramMatrix(budget, { width: 12, chunkShift: 5 });
    expect(matrix.bytes).toBe(0);
    learn(matrix, 1, 2, [[3, 1]]);
    expect(matrix.bytes).toBeLessThan(4096);
    for (let i = 0; i < 20_000; i++) learn(matrix, i, i + 1, [[i, 1]]);
    expect(matrix.bytes).toBe(budget.used);
    expect(budget.used).toBeLessThanOrEqual(budget.limit);
    expect(matrix.bytes).toBeGreaterThan(100 * 1024);
    expect(matrix.evicted).toBeGreaterThan(10_000);
    expect(matrix.checkIntegrity()).toEqual([]);
  });

  it("evicts rows that are not used before rows that are", () => {
    const matrix = new TrigramMatrix(new MemoryBudget(128 * 1024), { width: 12, chunkShift: 5 });
    const ids = new Int32Array(12);
    const probs = new Float32Array(12);
    for (let i = 0; i < 50; i++) learn(matrix, 1_000_000 + i, 5, [[i, 1]]);
    for (let i = 0; i < 20_000; i++) {
      learn(matrix, i, i + 1, [[i, 1]]);
      if (i % 50 === 0) {
        for (let j = 0; j < 50; j++) {
          const row = matrix.find(1_000_000 + j, 5);
          if (row >= 0) matrix.read(row, ids, probs);
        }
      }
    }
    let kept = 0;
    for (let j = 0; j < 50; j++) if (matrix.find(1_000_000 + j, 5) >= 0) kept++;
    expect(kept).toBeGreaterThanOrEqual(40);
  });

  it("gives all its memory back when cleared, and can be used again", () => {
    const budget = new MemoryBudget(2 ** 20);
    const matrix = new TrigramMatrix(budget, { width: WIDTH, chunkShift: 4 });
    for (let i = 0; i < 500; i++) learn(matrix, i, i, [[i, 1]]);
    matrix.clear();
    expect(budget.used).toBe(0);
    expect(matrix.find(3, 3)).toBe(-1);
    learn(matrix, 3, 3, [[4, 1]]);
    expect(rowOf(matrix, 3, 3)).toEqual(new Map([[4, 1]]));
    expect(matrix.checkIntegrity()).toEqual([]);
  });

  it("holds its invariants and its bound after any operations", () => {
    const token = fc.integer({ min: -1, max: 40 });
    const operation = fc.oneof(
      {
        weight: 20,
        arbitrary: fc.record({
          kind: fc.constant("update" as const),
          a: token,
          b: token,
          ids: fc.uniqueArray(fc.integer({ min: 0, max: 30 }), { minLength: 0, maxLength: 6 }),
          rate: fc.double({ min: 0, max: 1, noNaN: true }),
        }),
      },
      { weight: 5, arbitrary: fc.record({ kind: fc.constant("read" as const), a: token, b: token }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("release" as const) }) },
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 2_000, max: 20_000 }),
        fc.array(operation, { maxLength: 400 }),
        (limit, operations) => {
          const budget = new MemoryBudget(limit);
          const matrix = new TrigramMatrix(budget, { width: WIDTH, chunkShift: 3 });
          for (const op of operations) {
            if (op.kind === "update") {
              const p = 1 / Math.max(1, op.ids.length);
              learn(
                matrix,
                op.a,
                op.b,
                op.ids.map((id) => [id, p]),
                op.rate,
              );
            } else if (op.kind === "read") {
              rowOf(matrix, op.a, op.b);
            } else {
              matrix.releaseChunk();
            }
          }
          expect(matrix.checkIntegrity()).toEqual([]);
          expect(budget.used).toBeLessThanOrEqual(limit);
          expect(matrix.bytes).toBe(budget.used);
        },
      ),
      { numRuns: 150 },
    );
  });

  it("finds every row that a plain map holds while memory lasts", () => {
    const key = fc.tuple(fc.integer({ min: 0, max: 300_000 }), fc.integer({ min: 0, max: 300_000 }));
    fc.assert(
      fc.property(fc.array(key, { maxLength: 300 }), (keys) => {
        const matrix = matrixOf();
        for (const [i, [a, b]] of keys.entries()) learn(matrix, a, b, [[i, 1]], 1);
        const last = new Map(keys.map(([a, b], i) => [`${a},${b}`, { a, b, i }]));
        expect(matrix.rowCount).toBe(last.size);
        for (const { a, b, i } of last.values()) expect(rowOf(matrix, a, b)?.get(i)).toBeCloseTo(1, 3);
      }),
      { numRuns: 50 },
    );
  });

  it("takes packed rows back as they were, the first of those that came twice, and goes on learning", () => {
    const rows = fc.uniqueArray(
      fc.tuple(fc.integer({ min: NONE, max: 40 }), fc.integer({ min: 0, max: 40 })),
      {
        selector: ([a, b]) => `${a},${b}`,
        maxLength: 200,
      },
    );
    const slice = fc.tuple(fc.nat(199), fc.integer({ min: 1, max: 60 }));
    fc.assert(
      fc.property(rows, fc.array(slice, { maxLength: 4 }), fc.constantFrom(3, 4, 6), (keys, again, width) => {
        const matrix = matrixOf();
        for (const [a, b] of keys) {
          learn(matrix, a, b, [
            [b + 1, 0.5],
            [a + 2, 0.25],
            [100 + b, 0.125],
            [200 + a, 0.0625],
          ]);
        }
        const copy = new TrigramMatrix(new MemoryBudget(2 ** 20), { width, chunkShift: 4 });
        // some slices twice, as when rows move while a snapshot is written
        for (const [from, n] of [...again, [0, 200], ...again]) {
          const slice = new ArrayBuffer(n * matrix.rowBytes);
          const packed = matrix.pack(from, n, slice);
          copy.unpack(slice, packed * matrix.rowBytes, { rows: packed, width: WIDTH });
        }
        copy.index();
        expect(copy.checkIntegrity()).toEqual([]);
        expect(copy.rowCount).toBe(keys.length);
        for (const [a, b] of keys) {
          const all = [...(rowOf(matrix, a, b) ?? [])].slice(0, width);
          expect([...(rowOf(copy, a, b) ?? [])]).toEqual(all);
          expect(copy.seen(copy.find(a, b))).toBe(1);
        }
        for (let b = 41; b < 90; b++) learn(copy, 0, b, [[1, 1]]);
        expect(copy.checkIntegrity()).toEqual([]);
        expect(copy.rowCount).toBe(keys.length + 49);
      }),
    );
  });

  it.each([4, 8])("takes as many packed rows as there is room for, in chunks of 2^%i", (chunkShift) => {
    const matrix = matrixOf();
    for (let b = 0; b < 900; b++) learn(matrix, 1, b, [[b, 1]]);
    const budget = new MemoryBudget(3 * matrixOf(0, chunkShift).chunkBytes);
    const copy = new TrigramMatrix(budget, { width: WIDTH, chunkShift });
    const slice = new ArrayBuffer(900 * matrix.rowBytes);
    copy.unpack(slice, matrix.pack(0, 900, slice) * matrix.rowBytes, { rows: 900, width: WIDTH });
    copy.index();
    expect(copy.checkIntegrity()).toEqual([]);
    expect(copy.bytes).toBe(budget.used);
    expect(copy.rowCount).toBeGreaterThanOrEqual(1 << chunkShift);
    for (let b = 0; b < copy.rowCount; b++) expect(rowOf(copy, 1, b)).toEqual(new Map([[b, 1]]));
    learn(copy, 2, 2, [[7, 1]]);
    expect(copy.checkIntegrity()).toEqual([]);
    expect(rowOf(copy, 2, 2)).toEqual(new Map([[7, 1]]));
  });
});

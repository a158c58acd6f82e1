import { writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { FloorTable, NO_TOKEN } from "../../../src/corpus/floor.ts";
import { FloorBuilder } from "../../../src/corpus/floor-builder.ts";
import { loadFloor } from "../../../src/corpus/floor-source.ts";
import type { PairRow } from "../../../src/corpus/pair-rows.ts";
import { type Gram, makeCorpus, scratchFolder } from "./support.ts";

const folder = scratchFolder();
const UNBOUND = 2 ** 30;

/** The rows of grams, by the book: successors by falling count, then by token. */
function rowsOf(grams: readonly Gram[], topK: number): Map<string, PairRow> {
  const rows = new Map<string, Gram[]>();
  for (const gram of grams) {
    const key = `${gram[0]} ${gram[1]}`;
    rows.set(key, [...(rows.get(key) ?? []), gram]);
  }
  return new Map(
    [...rows].map(([key, own]) => {
      const best = [...own].sort((x, y) => y[3] - x[3] || x[2] - y[2]).slice(0, topK);
      const row: PairRow = {
        a: own[0][0],
        b: own[0][1],
        total: own.reduce((sum, [, , , n]) => sum + n, 0),
        distinct: own.length,
        size: best.length,
        ids: Int32Array.from(best, ([, , c]) => c),
        counts: Float64Array.from(best, ([, , , n]) => n),
      };
      return [key, row];
    }),
  );
}

/** Successors with their probabilities; undefined when there is no such row. */
function look(
  floor: FloorTable,
  a: number,
  b: number,
): { ids: number[]; probs: number[]; seen: number } | undefined {
  const row = floor.find(a, b);
  if (row < 0) return undefined;
  const ids = new Int32Array(floor.width);
  const probs = new Float32Array(floor.width);
  const size = floor.read(row, ids, probs);
  return { ids: [...ids.subarray(0, size)], probs: [...probs.subarray(0, size)], seen: floor.seen(row) };
}

function expectRow(found: ReturnType<typeof look>, row: PairRow): void {
  expect(found?.ids).toEqual([...row.ids]);
  expect(found?.seen).toBe(Math.min(255, row.total));
  for (const [i, p] of (found?.probs ?? []).entries()) {
    const share = row.counts[i] / row.total;
    // 12 bits of logarithm
    expect(Math.abs(Math.log(p / share))).toBeLessThan(0.0013);
  }
}

const id = fc.integer({ min: 0, max: 9 });
const grams = fc
  .uniqueArray(fc.tuple(id, id, id, fc.integer({ min: 1, max: 300 })), {
    selector: ([a, b, c]) => `${a} ${b} ${c}`,
    maxLength: 150,
  })
  .map((list) => list.sort((x, y) => x[0] - y[0] || x[1] - y[1] || x[2] - y[2]));

describe("a floor", () => {
  it("finds each row with its successors, and no others", () => {
    fc.assert(
      fc.property(grams, fc.integer({ min: 1, max: 6 }), (list, topK) => {
        const rows = rowsOf(list, topK);
        const builder = new FloorBuilder(10, topK, UNBOUND);
        for (const row of rows.values()) builder.add(row.a, row.b, row);
        const floor = new FloorTable(builder.finish());
        expect(floor.rowCount).toBe(rows.size);
        for (let a = 0; a < 10; a++) {
          for (let b = 0; b < 10; b++) {
            const row = rows.get(`${a} ${b}`);
            const found = look(floor, a, b);
            if (row === undefined) expect(found).toBeUndefined();
            else expectRow(found, row);
          }
        }
        for (const [a, b] of [
          [10, 0],
          [99, 1],
          [-5, 1],
          [1, 10],
          [1, -1],
          [NO_TOKEN, 3],
        ]) {
          expect(floor.find(a, b)).toBe(-1);
        }
      }),
    );
  });

  it("keeps bi-gram rows apart from those of the last token", () => {
    const row = [...rowsOf([[9, 3, 1, 4]], 2).values()][0];
    const builder = new FloorBuilder(10, 2, UNBOUND);
    builder.add(9, 3, row);
    builder.add(10, 4, row);
    const floor = new FloorTable(builder.finish());
    expect(look(floor, 9, 3)?.ids).toEqual([1]);
    expect(look(floor, NO_TOKEN, 4)?.ids).toEqual([1]);
    expect([floor.find(9, 4), floor.find(NO_TOKEN, 3)]).toEqual([-1, -1]);
  });

  it("keeps within its bound: the rarest pairs go, whatever the order", () => {
    const bound = 40_000;
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 4000, maxLength: 6000 }),
        (totals) => {
          const list = totals.map((n, i): Gram => [i >> 6, i & 63, i % 10, n]);
          const builder = new FloorBuilder(100, 4, bound);
          const rows = rowsOf(list, 4);
          for (const row of rows.values()) builder.add(row.a, row.b, row);
          const floor = new FloorTable(builder.finish());
          expect(floor.bytes).toBeLessThanOrEqual(bound);
          expect(floor.rowCount + builder.dropped).toBe(list.length);
          const kept = list.filter(([a, b]) => floor.find(a, b) >= 0);
          expect(kept).toHaveLength(floor.rowCount);
          const least = Math.min(...kept.map(([, , , n]) => n));
          // nothing more frequent than what was kept was dropped
          expect(list.filter(([a, b, , n]) => n > least && floor.find(a, b) < 0)).toEqual([]);
          expect(floor.bytes).toBeGreaterThan(bound / 2);
          for (const [a, b] of kept) expectRow(look(floor, a, b), rows.get(`${a} ${b}`) as PairRow);
        },
      ),
      { numRuns: 3 },
    );
  });

  it("keeps within its bound when all pairs are equally frequent", () => {
    const builder = new FloorBuilder(200, 4, 40_000);
    const list = Array.from({ length: 12_000 }, (_, i): Gram => [i >> 6, i & 63, 1, 1]);
    for (const row of rowsOf(list, 4).values()) builder.add(row.a, row.b, row);
    const floor = new FloorTable(builder.finish());
    expect(floor.bytes).toBeLessThanOrEqual(40_000);
    expect(floor.bytes).toBeGreaterThan(25_000);
    // as many of the first tokens' as of the last ones'
    const kept = (from: number): number =>
      list.slice(from, from + 6000).filter(([a, b]) => floor.find(a, b) >= 0).length;
    expect(Math.abs(kept(0) - kept(6000))).toBeLessThan(0.2 * floor.rowCount);
  });

  it("is told from other bytes", () => {
    expect(() => new FloorTable(new SharedArrayBuffer(64))).toThrow("no floor");
    const whole = new Uint8Array(new FloorBuilder(10, 4, UNBOUND).finish());
    expect(() => new FloorTable(whole.slice(0, whole.length - 4).buffer)).toThrow("no floor");
  });
});

describe("reading corpora in a process of its own", () => {
  const wide: Gram[] = Array.from({ length: 20 }, (_, i) => [1, 2, i, 20 - i]);
  const request = (...files: [string, number][]) => ({
    corpora: files.map(([file, weight]) => ({ file, weight })),
    topK: 12,
    bound: UNBOUND,
  });

  it("prunes each row, and adds bi-gram rows", async () => {
    const file = await makeCorpus(folder, "wide.parquet", [
      wide,
      [
        [7, 2, 3, 100],
        [7, 8, 9, 5],
      ],
    ]);
    const loaded = await loadFloor(request([file, 1]));
    const floor = new FloorTable(loaded.buffer);
    expect(loaded).toMatchObject({ vocabHash: "0123456789abcdef", nVocab: 1000, rows: 5, dropped: 0 });
    expectRow(look(floor, 1, 2), rowsOf(wide, 12).get("1 2") as PairRow);
    expect(look(floor, NO_TOKEN, 2)?.ids.slice(0, 3)).toEqual([3, 0, 1]);
    expect(look(floor, NO_TOKEN, 2)?.seen).toBe(255);
    expect(look(floor, NO_TOKEN, 8)).toEqual({ ids: [9], probs: [1], seen: 5 });
  });

  it("adds several corpora up by weight, an occurrence counting the same in each", async () => {
    const x = await makeCorpus(folder, "wx.parquet", [
      [
        [1, 1, 1, 3],
        [1, 1, 2, 1],
      ],
    ]);
    const y = await makeCorpus(
      folder,
      "wy.parquet",
      [
        [
          [1, 1, 2, 2000],
          [5, 5, 5, 1000],
        ],
      ],
      { scale: 1000 },
    );
    const floor = new FloorTable((await loadFloor(request([x, 1], [y, 2]))).buffer);
    const row = look(floor, 1, 1);
    expect(row?.ids).toEqual([2, 1]);
    expect(row?.probs[0]).toBeCloseTo(5 / 8, 2);
    expect(row?.seen).toBe(8);
    expect(look(floor, 5, 5)?.seen).toBe(2);
  });

  it("reads several large corpora side by side", async () => {
    // more than DuckDB holds ready of a query's rows
    const rows = 150_000;
    const file = (name: string, n: number): Promise<string> =>
      makeCorpus(folder, name, [
        Array.from({ length: rows }, (_, i): Gram => [(i / 400) | 0, i % 400, 7, n]),
      ]);
    const loaded = await loadFloor(
      request([await file("lx.parquet", 1), 1], [await file("ly.parquet", 3), 2]),
    );
    const floor = new FloorTable(loaded.buffer);
    // and a row for each second token alone
    expect(loaded).toMatchObject({ rows: rows + 400, dropped: 0 });
    for (const [a, b] of [
      [0, 0],
      [187, 33],
      [374, 399],
    ]) {
      expect(look(floor, a, b)).toEqual({ ids: [7], probs: [1], seen: 7 });
    }
  });

  it("names what is wrong: missing, damaged, two vocabularies", async () => {
    const good = await makeCorpus(folder, "good.parquet", [wide]);
    const other = await makeCorpus(folder, "other.parquet", [wide], { vocabHash: "00" });
    const wrong = await makeCorpus(folder, "wrong.parquet", [wide], { total: 1 });
    const junk = path.join(folder, "junk.parquet");
    writeFileSync(junk, "PAR1 no PAR1");
    await expect(loadFloor(request([path.join(folder, "no.parquet"), 1]))).rejects.toThrow(
      "there is no corpus",
    );
    await expect(loadFloor(request([junk, 1]))).rejects.toThrow(/junk\.parquet.* is damaged/);
    await expect(loadFloor(request([wrong, 1]))).rejects.toThrow(/wrong\.parquet is damaged/);
    await expect(loadFloor(request([good, 1], [other, 1]))).rejects.toThrow(/other\.parquet to 00/);
  });

  it("ends when it is aborted", async () => {
    const abort = new AbortController();
    const loading = loadFloor(request([await makeCorpus(folder, "slow.parquet", [wide]), 1]), {
      signal: abort.signal,
      busy: () => true,
    });
    abort.abort(new Error("enough"));
    await expect(loading).rejects.toThrow("enough");
  });
});

import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { readCorpusFile } from "../../../src/corpus/corpus-file.ts";
import { literal, openDatabase } from "../../../src/corpus/database.ts";
import { type GramStream, mergeGrams, readGrams } from "../../../src/corpus/gram-stream.ts";
import { corpusInfo } from "../../../src/corpus/info.ts";
import { forEachPair } from "../../../src/corpus/pair-rows.ts";
import { type Gram, makeCorpus, scratchFolder } from "./support.ts";

const folder = scratchFolder();

/** Sorted, without repeated keys, as a stream of blocks of the given size. */
async function* stream(grams: readonly Gram[], size: number): GramStream & AsyncGenerator {
  const block = {
    count: 0,
    a: new Int32Array(size),
    b: new Int32Array(size),
    c: new Int32Array(size),
    n: new Float64Array(size),
  };
  for (let from = 0; from < grams.length; from += size) {
    const part = grams.slice(from, from + size);
    block.count = part.length;
    for (const [i, [a, b, c, n]] of part.entries()) {
      block.a[i] = a;
      block.b[i] = b;
      block.c[i] = c;
      block.n[i] = n;
    }
    yield block;
  }
}

async function collect(grams: GramStream): Promise<Gram[]> {
  const all: Gram[] = [];
  for await (const { count, a, b, c, n } of grams) {
    for (let i = 0; i < count; i++) all.push([a[i], b[i], c[i], n[i]]);
  }
  return all;
}

const id = fc.integer({ min: 0, max: 4 });
const sorted = fc
  .array(fc.tuple(id, id, id, fc.integer({ min: 1, max: 6 })), { maxLength: 80 })
  .map((grams) => addUp([grams], [1]));
const blockSize = fc.integer({ min: 1, max: 20 });

/** What several lists add up to, by the book. */
function addUp(lists: readonly (readonly Gram[])[], weights: readonly number[]): Gram[] {
  const counts = new Map<string, number>();
  for (const [i, list] of lists.entries()) {
    for (const [a, b, c, n] of list) {
      const key = JSON.stringify([a, b, c]);
      counts.set(key, (counts.get(key) ?? 0) + n * weights[i]);
    }
  }
  const grams = [...counts].map(([key, n]) => [...(JSON.parse(key) as [number, number, number]), n] as const);
  return grams.sort((x, y) => x[0] - y[0] || x[1] - y[1] || x[2] - y[2]);
}

describe("merging streams", () => {
  it("adds weighted counts up, in order", async () => {
    const lists = fc.array(fc.tuple(sorted, fc.constantFrom(1, 2, 0.5), blockSize), { maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(lists, async (given) => {
        const merged = mergeGrams(
          given.map(([grams, weight, size]) => ({ grams: stream(grams, size), weight })),
        );
        expect(await collect(merged)).toEqual(
          addUp(
            given.map(([grams]) => grams),
            given.map(([, weight]) => weight),
          ),
        );
      }),
    );
  });
});

describe("rows of pairs", () => {
  it("keep the most frequent successors, equal ones by their token, and count what they drop", async () => {
    await fc.assert(
      fc.asyncProperty(sorted, blockSize, fc.integer({ min: 1, max: 6 }), async (grams, size, topK) => {
        const rows: unknown[] = [];
        await forEachPair(stream(grams, size), topK, (row) => {
          const kept = Array.from({ length: row.size }, (_, i) => [row.ids[i], row.counts[i]]);
          rows.push({ pair: [row.a, row.b], total: row.total, distinct: row.distinct, kept });
        });
        const pairs = [...new Set(grams.map(([a, b]) => JSON.stringify([a, b])))];
        const expected = pairs.map((key) => {
          const own = grams.filter(([a, b]) => JSON.stringify([a, b]) === key);
          const best = [...own].sort((x, y) => y[3] - x[3] || x[2] - y[2]);
          return {
            pair: JSON.parse(key) as unknown,
            total: own.reduce((sum, [, , , n]) => sum + n, 0),
            distinct: own.length,
            kept: best.slice(0, topK).map(([, , c, n]) => [c, n]),
          };
        });
        expect(rows).toEqual(expected);
      }),
    );
  });
});

describe("reading a corpus file", () => {
  const grams: Gram[] = Array.from({ length: 10_000 }, (_, i) => [
    i >> 8,
    (i >> 4) & 15,
    i & 15,
    1 + (i % 5),
  ]);

  it("gives back what was counted", async () => {
    const file = await makeCorpus(folder, "read.parquet", [grams.slice(0, 4000), grams.slice(4000)]);
    const database = await openDatabase({ memory: 128 * 2 ** 20 });
    const corpus = await readCorpusFile(database, file);
    expect(await collect(readGrams(database, corpus))).toEqual(grams);
    await database.close();
  });

  it("notices rows that are missing, out of order or beyond the vocabulary", async () => {
    const database = await openDatabase({ memory: 128 * 2 ** 20 });
    const good = await makeCorpus(folder, "good.parquet", [grams]);
    const { total } = await readCorpusFile(database, good);
    const variants: [string, string][] = [
      ["SELECT * FROM good LIMIT 9999", "its checksum is another"],
      ["SELECT * FROM good ORDER BY c, b, a", "after"],
      ["SELECT a + 990 AS a, b, c, n FROM good", "after"],
      ["SELECT a, b, IF(a = 30 AND b = 15 AND c = 15, 16, c) AS c, n FROM good", "its checksum is another"],
      ["SELECT a, b, c, n - 1 AS n FROM good", "× 0"],
    ];
    for (const [i, [sql, message]] of variants.entries()) {
      const file = path.join(folder, `bad-${i}.parquet`);
      const meta = (
        await database.rows<{ value: string }>(
          `SELECT decode(value) AS value FROM parquet_kv_metadata(${literal(good)})`,
          "test",
        )
      )[0].value;
      await database.run(
        `COPY (${sql.replace(/\bgood\b/, `read_parquet(${literal(good)})`)}) TO ${literal(file)}
         (FORMAT parquet, KV_METADATA {'aded.corpus': ${literal(meta)}})`,
        "test",
      );
      const corpus = await readCorpusFile(database, file);
      expect(corpus.total).toBe(total);
      await expect(collect(readGrams(database, corpus))).rejects.toThrow(message);
    }
    await database.close();
  });

  it("never takes a file with a flipped byte for another one", async () => {
    const file = await makeCorpus(folder, "flip.parquet", [grams]);
    const bytes = readFileSync(file);
    const bad = path.join(folder, "flipped.parquet");
    let refused = 0;
    const places = Array.from({ length: 24 }, (_, i) => 4 + Math.floor((i * (bytes.length - 12)) / 24));
    for (const place of places) {
      const copy = Buffer.from(bytes);
      copy[place] ^= 0x10;
      writeFileSync(bad, copy);
      const database = await openDatabase({ memory: 128 * 2 ** 20 });
      try {
        const corpus = await readCorpusFile(database, bad);
        // what is not noticed changed nothing that matters
        expect(await collect(readGrams(database, corpus))).toEqual(grams);
      } catch (error) {
        expect(error).toMatchObject({ code: "ADED_CORPUS" });
        refused++;
      } finally {
        await database.close();
      }
    }
    expect(refused).toBeGreaterThan(0);
  });
});

describe("what a corpus holds", () => {
  it("is told with the coverage of pruned rows and the biggest rows", async () => {
    // one pair with 100 successors, the i-th occurring 100 - i times; another with one successor
    const wide: Gram[] = Array.from({ length: 100 }, (_, i) => [1, 2, i, 100 - i]);
    const file = await makeCorpus(folder, "info.parquet", [wide, [[3, 4, 5, 7]]]);
    const info = await corpusInfo(file, 1);
    const sum = (k: number): number => wide.slice(0, k).reduce((total, [, , , n]) => total + n, 0);
    expect(info).toMatchObject({ rows: 101, pairs: 2, total: 5050 + 7 });
    for (const k of [4, 8, 12, 16, 64]) expect(info.coverage[k]).toBeCloseTo((sum(k) + 7) / 5057, 12);
    expect(info.biggest).toEqual([
      {
        a: 1,
        b: 2,
        total: 5050,
        distinct: 100,
        top: [0, 1, 2, 3, 4].map((c) => ({ id: c, share: (100 - c) / 5050 })),
      },
    ]);
  });
});

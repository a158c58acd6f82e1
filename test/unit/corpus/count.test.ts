import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { readCorpusFile } from "../../../src/corpus/corpus-file.ts";
import { literal, openDatabase } from "../../../src/corpus/database.ts";
import { type Gram, META, makeCorpus, scratchFolder } from "./support.ts";

const folder = scratchFolder();

async function rowsOf(file: string): Promise<number[][]> {
  const database = await openDatabase({ memory: 256 * 2 ** 20 });
  try {
    const rows = await database.rows<{ a: number; b: number; c: number; n: number }>(
      `SELECT a, b, c, n FROM ${literal(file)}`,
      file,
    );
    return rows.map(({ a, b, c, n }) => [a, b, c, n]);
  } finally {
    await database.close();
  }
}

describe("adding up parts", () => {
  it("gives what a naive count gives, sorted by tokens", async () => {
    const id = fc.integer({ min: 0, max: 4 });
    const gram: fc.Arbitrary<Gram> = fc.tuple(id, id, id, fc.integer({ min: 1, max: 9 }));
    const parts = fc.array(fc.array(gram, { minLength: 1, maxLength: 60 }), { minLength: 1, maxLength: 4 });
    let run = 0;
    await fc.assert(
      fc.asyncProperty(parts, async (list) => {
        const file = await makeCorpus(folder, `naive-${run++}.parquet`, list);
        const counts = new Map<string, number>();
        for (const [a, b, c, n] of list.flat()) {
          const key = JSON.stringify([a, b, c]);
          counts.set(key, (counts.get(key) ?? 0) + n);
        }
        const expected = [...counts].map(([key, n]) => [...(JSON.parse(key) as number[]), n]);
        expected.sort((x, y) => x[0] - y[0] || x[1] - y[1] || x[2] - y[2]);
        expect(await rowsOf(file)).toEqual(expected);
      }),
      { numRuns: 15 },
    );
  });

  it("keeps counts past 32 bits", async () => {
    const most = 2 ** 30;
    const file = await makeCorpus(folder, "large.parquet", [
      [[1, 2, 3, most]],
      [[1, 2, 3, most]],
      [[1, 2, 3, most]],
    ]);
    expect(await rowsOf(file)).toEqual([[1, 2, 3, 3 * most]]);
  });
});

describe("a corpus file", () => {
  const grams: Gram[] = Array.from({ length: 500 }, (_, i) => [i % 7, i % 11, i, 1 + (i % 3)]);

  async function read(file: string) {
    const database = await openDatabase({ memory: 64 * 2 ** 20 });
    try {
      return await readCorpusFile(database, file);
    } finally {
      await database.close();
    }
  }

  it("says what it belongs to and where it comes from", async () => {
    const sources = [{ name: "it's 5 o'clock.jsonl", files: 2, bytes: 10, documents: 3, tokens: 20 }];
    const file = await makeCorpus(folder, "meta.parquet", [grams], { sources });
    const total = grams.reduce((sum, [, , , n]) => sum + n, 0);
    expect(await read(file)).toMatchObject({
      ...META,
      file,
      rows: 500,
      sources,
      total,
      checksum: expect.any(Number),
    });
  });

  it("is refused when it is missing, cut off, of another kind or of another version", async () => {
    const good = await makeCorpus(folder, "good.parquet", [grams]);
    await expect(read(path.join(folder, "none.parquet"))).rejects.toThrow("there is no corpus");
    for (const keep of [0, 4, 100, readFileSync(good).length - 1]) {
      const cut = path.join(folder, `cut-${keep}.parquet`);
      writeFileSync(cut, readFileSync(good));
      truncateSync(cut, keep);
      await expect(read(cut)).rejects.toThrow("is damaged: it is no whole Parquet file");
    }
    const footless = path.join(folder, "footless.parquet");
    const bytes = readFileSync(good);
    bytes.fill(0xff, bytes.length - 300, bytes.length - 4);
    writeFileSync(footless, bytes);
    await expect(read(footless)).rejects.toThrow("is damaged");
    const database = await openDatabase({ memory: 64 * 2 ** 20 });
    const other = path.join(folder, "other.parquet");
    const newer = path.join(folder, "newer.parquet");
    await database.run(`COPY (SELECT 1 AS x) TO ${literal(other)} (FORMAT parquet)`, "test");
    await database.run(
      `COPY (SELECT 1 AS x) TO ${literal(newer)} (FORMAT parquet, KV_METADATA {'aded.corpus': '{"version": 9}'})`,
      "test",
    );
    await database.close();
    await expect(read(other)).rejects.toThrow("is a Parquet file, but no corpus");
    await expect(read(newer)).rejects.toThrow("version 9");
  });
});

describe("DuckDB's troubles", () => {
  it("are told in words that help: a full disk", async () => {
    const database = await openDatabase({ memory: 64 * 2 ** 20 });
    const writing = database.run(
      "COPY (SELECT range AS x FROM range(100000)) TO '/dev/full' (FORMAT parquet)",
      "x",
    );
    await expect(writing).rejects.toMatchObject({ code: "ADED_CORPUS", message: "x: the disk is full" });
    await database.close();
  });

  it("are told in words that help: too little memory, and nowhere to spill to", async () => {
    const database = await openDatabase({ memory: 16 * 2 ** 20 });
    const sorting = database.rows("SELECT * FROM range(5000000) ORDER BY hash(range)", "x");
    await expect(sorting).rejects.toMatchObject({
      message: "x: 16 MiB are not enough",
      hint: "give more with --memory",
    });
    await database.close();
  });

  it("end with the reason of the signal when it is aborted", async () => {
    const abort = new AbortController();
    const database = await openDatabase({ memory: 256 * 2 ** 20, signal: abort.signal });
    const endless = database.rows("SELECT count(*) FROM range(1000000000000) a WHERE hash(a.range) = 1", "x");
    abort.abort(new Error("enough"));
    await expect(endless).rejects.toThrow("enough");
    await database.close();
  });
});

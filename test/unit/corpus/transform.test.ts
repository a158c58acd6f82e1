import { mkdirSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import { makeWorkFolder, PARTS_DESCRIPTION, readCorpusFile } from "../../../src/corpus/corpus-file.ts";
import { literal, openDatabase } from "../../../src/corpus/database.ts";
import { diffCorpora } from "../../../src/corpus/diff.ts";
import { GramCounter } from "../../../src/corpus/gram-counter.ts";
import { readGrams } from "../../../src/corpus/gram-stream.ts";
import { mergeCorpora } from "../../../src/corpus/merge.ts";
import { PartWriter } from "../../../src/corpus/part-writer.ts";
import { pruneCorpus } from "../../../src/corpus/prune.ts";
import { type Gram, META, makeCorpus, scratchFolder } from "./support.ts";

const folder = scratchFolder();
const out = (name: string): string => path.join(folder, name);

/** Reads it to its end: total and checksum are right. */
async function check(file: string): Promise<void> {
  const database = await openDatabase({ memory: 128 * 2 ** 20 });
  for await (const block of readGrams(database, await readCorpusFile(database, file))) {
    expect(block.count).toBeGreaterThan(0);
  }
  await database.close();
}

async function read(
  file: string,
): Promise<{ grams: number[][]; meta: Awaited<ReturnType<typeof readCorpusFile>> }> {
  const database = await openDatabase({ memory: 128 * 2 ** 20 });
  const meta = await readCorpusFile(database, file);
  const rows = await database.rows<Record<"a" | "b" | "c" | "n", number>>(
    `SELECT a, b, c, n FROM read_parquet(${literal(file)})`,
    file,
  );
  await database.close();
  return { meta, grams: rows.map(({ a, b, c, n }) => [a, b, c, n]) };
}

const first: Gram[] = [
  [1, 1, 1, 5],
  [1, 1, 2, 5],
  [1, 1, 3, 9],
  [1, 1, 4, 1],
  [2, 1, 1, 1],
];
const second: Gram[] = [
  [1, 1, 2, 3],
  [1, 2, 1, 4],
];

describe("pruning", () => {
  it("keeps the most frequent successors of each pair, in order, and says so", async () => {
    const file = await makeCorpus(folder, "prune-in.parquet", [first]);
    const made = await pruneCorpus(file, 2, out("pruned.parquet"));
    const { grams, meta } = await read(out("pruned.parquet"));
    expect(grams).toEqual([
      [1, 1, 1, 5],
      [1, 1, 3, 9],
      [2, 1, 1, 1],
    ]);
    await check(out("pruned.parquet"));
    expect(made.rows).toBe(3);
    expect(meta).toMatchObject({ topK: 2, total: 15, rows: 3 });
  });
});

describe("merging", () => {
  it("adds up counts, totals and sources", async () => {
    const x = await makeCorpus(folder, "x.parquet", [first]);
    const y = await makeCorpus(folder, "y.parquet", [second], { format: "stack" });
    await mergeCorpora([x, y], out("merged.parquet"));
    const { grams, meta } = await read(out("merged.parquet"));
    expect(grams).toEqual([
      [1, 1, 1, 5],
      [1, 1, 2, 8],
      [1, 1, 3, 9],
      [1, 1, 4, 1],
      [1, 2, 1, 4],
      [2, 1, 1, 1],
    ]);
    await check(out("merged.parquet"));
    expect(meta).toMatchObject({
      format: "text+stack",
      total: 28,
      sources: [META.sources[0], META.sources[0]],
    });
  });

  it("counts an occurrence the same in corpora of texts and of probabilities", async () => {
    const x = await makeCorpus(folder, "plain.parquet", [[[1, 1, 1, 2]]]);
    const y = await makeCorpus(folder, "grown.parquet", [[[1, 1, 1, 500]]], { scale: 1000 });
    await mergeCorpora([x, y], out("scaled.parquet"));
    const { grams, meta } = await read(out("scaled.parquet"));
    expect(grams).toEqual([[1, 1, 1, 2500]]);
    await check(out("scaled.parquet"));
    expect(meta).toMatchObject({ scale: 1000, total: 2500 });
  });

  it("makes a corpus of a folder of parts, once that is described", async () => {
    const parts = out("parts");
    mkdirSync(parts);
    const writer = await PartWriter.create();
    for (const [i, list] of [first, second].entries()) {
      const counter = new GramCounter(8);
      for (const [a, b, c, n] of list) counter.add(a, b, c, n);
      await writer.write(counter, path.join(parts, `part-${i}.parquet`));
    }
    await writer.close();
    await expect(mergeCorpora([parts], out("of-parts.parquet"))).rejects.toThrow("holds no finished parts");
    writeFileSync(path.join(parts, PARTS_DESCRIPTION), JSON.stringify({ ...META, total: 28 }));
    await mergeCorpora([parts], out("of-parts.parquet"));
    const diff = await diffCorpora(out("of-parts.parquet"), out("merged.parquet"), 5);
    expect(diff).toMatchObject({ same: 6, distance: 0 });
  });

  it("refuses corpora of different vocabularies, by name, and leaves nothing behind", async () => {
    const x = await makeCorpus(folder, "mine.parquet", [first]);
    const y = await makeCorpus(folder, "other.parquet", [first], {
      vocabHash: "fedcba9876543210",
      model: "o.gguf",
    });
    await expect(mergeCorpora([x, y], out("no.parquet"))).rejects.toThrow(
      /mine\.parquet .*0123.*other\.parquet .*fedc/,
    );
    expect(readdirSync(folder).filter((name) => name.includes("no.parquet"))).toEqual([]);
  });
});

describe("what a killed process left", () => {
  it("is removed when the same corpus is made again", async () => {
    const x = await makeCorpus(folder, "again-in.parquet", [first]);
    await pruneCorpus(x, 2, out("again.parquet"));
    const left = await makeWorkFolder(out("again.parquet"));
    writeFileSync(path.join(left.path, "pruned.parquet"), "half");
    renameSync(out("again.parquet"), out("kept.parquet"));
    await pruneCorpus(x, 2, out("again.parquet"));
    expect(readdirSync(folder).filter((name) => name.endsWith(".work"))).toEqual([]);
    expect((await read(out("again.parquet"))).grams).toHaveLength(3);
  });
});

describe("comparing", () => {
  it("counts what is the same, different, or missing, and shows the largest differences", async () => {
    const x = await makeCorpus(folder, "dx.parquet", [first]);
    const y = await makeCorpus(folder, "dy.parquet", [[first[0], [1, 1, 3, 1], [9, 9, 9, 2]]]);
    expect(await diffCorpora(x, y, 2)).toEqual({
      only_first: 3,
      only_second: 1,
      different: 1,
      same: 1,
      distance: (5 + 8 + 1 + 1 + 2) / 21,
      largest: [
        { a: 1, b: 1, c: 3, first: 9, second: 1 },
        { a: 1, b: 1, c: 2, first: 5, second: 0 },
      ],
    });
    expect(await diffCorpora(x, x, 2)).toMatchObject({ same: 5, distance: 0, largest: [] });
  });
});

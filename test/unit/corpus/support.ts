/** A folder that goes at the end of the file's tests, and corpora made of given counts. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll } from "@jest/globals";
import type { CorpusMeta } from "../../../src/corpus/corpus-file.ts";
import { countParts, partsTable } from "../../../src/corpus/count.ts";
import { GramCounter } from "../../../src/corpus/gram-counter.ts";
import { PartWriter } from "../../../src/corpus/part-writer.ts";

export type Gram = readonly [a: number, b: number, c: number, n: number];

export function scratchFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), "aded-corpus-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export const META: CorpusMeta = {
  vocabHash: "0123456789abcdef",
  nVocab: 1000,
  tokenizer: "test/test",
  model: "test.gguf",
  format: "text",
  template: false,
  scale: 1,
  total: 0,
  checksum: 0,
  topK: 0,
  sources: [{ name: "test", files: 1, bytes: 1, documents: 1, tokens: 1 }],
};

/** Writes the counts in several parts and adds them up. Returns the file. */
export async function makeCorpus(
  folder: string,
  name: string,
  parts: readonly (readonly Gram[])[],
  meta: Partial<CorpusMeta> = {},
): Promise<string> {
  const files: string[] = [];
  const writer = await PartWriter.create();
  let total = 0;
  let checksum = 0;
  for (const [i, grams] of parts.entries()) {
    const counter = new GramCounter(Math.max(6, Math.ceil(Math.log2(grams.length * 2 + 1))));
    for (const [a, b, c, n] of grams) {
      counter.add(a, b, c, n);
      total += n;
    }
    checksum = (checksum + counter.checksum) % 2 ** 32;
    const file = path.join(folder, `${name}-${i}.part`);
    await writer.write(counter, file);
    files.push(file);
  }
  await writer.close();
  const out = path.join(folder, name);
  await countParts({
    grams: partsTable(files),
    out,
    folder,
    spill: path.join(folder, `${name}.spill`),
    meta: { ...META, total, checksum, ...meta },
    memory: 256 * 2 ** 20,
    threads: 1,
  });
  return out;
}

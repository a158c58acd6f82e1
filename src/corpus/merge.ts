/** `aded corpus merge`: adds up corpora of one vocabulary, also those that are still in parts. */
import { stat } from "node:fs/promises";
import path from "node:path";
import {
  type CorpusMeta,
  type CorpusParts,
  readCorpusFile,
  readCorpusParts,
  requireOneVocabulary,
} from "./corpus-file.ts";
import { countParts, partsTable } from "./count.ts";
import { openDatabase } from "./database.ts";
import { DEFAULT_MEMORY, type MadeCorpus, type MakeOptions, makeCorpus } from "./make-corpus.ts";

const META_MEMORY = 64 * 2 ** 20;

/**
 * @param names corpus files, and folders of parts (of `build --parts` or of the Spark job)
 * @throws AdedError ADED_CORPUS, naming the file whose vocabulary is another
 */
export function mergeCorpora(
  names: readonly string[],
  out: string,
  options: MakeOptions = {},
): Promise<MadeCorpus> {
  return makeCorpus(out, options, async (target, work) => {
    const { memory = DEFAULT_MEMORY, threads = 2, signal } = options;
    const corpora = await readAll(names, signal);
    requireOneVocabulary(corpora);
    const scale = Math.max(...corpora.map((corpus) => corpus.scale));
    const tables = corpora.map(
      (corpus) => `SELECT a, b, c, n * ${scale / corpus.scale} AS n FROM ${partsTable(corpus.files)}`,
    );
    const { rows, bytes } = await countParts({
      grams: `(${tables.join(" UNION ALL ")})`,
      out: target,
      folder: work,
      spill: path.join(work, "spill"),
      meta: mergedMeta(corpora, scale),
      memory,
      threads,
      signal,
    });
    return { out, rows, bytes };
  });
}

async function readAll(names: readonly string[], signal?: AbortSignal): Promise<CorpusParts[]> {
  const database = await openDatabase({ memory: META_MEMORY, signal });
  try {
    const corpora: CorpusParts[] = [];
    for (const name of names) {
      const isFolder = (await stat(name).catch(() => undefined))?.isDirectory() ?? false;
      if (isFolder) corpora.push(await readCorpusParts(name));
      else corpora.push({ ...(await readCorpusFile(database, name)), files: [name] });
    }
    return corpora;
  } finally {
    await database.close();
  }
}

function mergedMeta(corpora: readonly CorpusParts[], scale: number): CorpusMeta {
  const [{ vocabHash, nVocab, tokenizer }] = corpora;
  const same = <T>(pick: (corpus: CorpusParts) => T): T[] => [...new Set(corpora.map(pick))];
  const sum = (pick: (corpus: CorpusParts) => number): number =>
    corpora.reduce((total, corpus) => total + pick(corpus), 0);
  return {
    vocabHash,
    nVocab,
    tokenizer,
    model: same(({ model }) => model).join("+"),
    format: same(({ format }) => format).join("+"),
    template: corpora.every(({ template }) => template),
    scale,
    total: sum((corpus) => corpus.total * (scale / corpus.scale)),
    checksum: sum((corpus) => Math.imul(corpus.checksum, scale / corpus.scale) >>> 0) % 2 ** 32,
    topK: Math.max(...corpora.map(({ topK }) => topK)),
    sources: corpora.flatMap(({ sources }) => sources),
  };
}

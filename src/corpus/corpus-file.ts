/**
 * Corpus files: Parquet of (a, b, c, n), sorted by a, b, c, whose metadata say which vocabulary they belong to and where
 * they come from. A file gets its name only when it is whole, so one that can be opened was finished.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import { AdedError } from "../errors.ts";
import { isWholeParquet } from "./byte-source.ts";
import { type Database, literal } from "./database.ts";
import { syncFile } from "./part-writer.ts";

const VERSION = 1;

/** One argument of the build: a file, a folder, or standard input. */
export interface CorpusSource {
  name: string;
  files: number;
  /** As they lie on the disk. */
  bytes: number;
  documents: number;
  tokens: number;
}

export interface CorpusMeta {
  /** Vocabulary hash, 16 hex digits. */
  vocabHash: string;
  nVocab: number;
  /** Kind of tokenizer, e.g. "gpt2/smollm". */
  tokenizer: string;
  /** File name of the model whose tokenizer was used. */
  model: string;
  /** "ultrachat", "sharegpt", "stack", "text", "grown", or several joined by "+". */
  format: string;
  /** Whether role markers of the chat template are counted. */
  template: boolean;
  /** Units of n per occurrence: 1, or 1000 where probabilities were counted. */
  scale: number;
  /** Sum of all n: whoever reads the file to its end knows that nothing is missing. */
  total: number;
  /** Sum of n · gramHash(a, b, c), modulo 2^32: tells damage that leaves the total as it was. Parts add up to it, too. */
  checksum: number;
  /** Most successors kept per (a, b); 0: all. */
  topK: number;
  sources: CorpusSource[];
}

export interface CorpusFile extends CorpusMeta {
  file: string;
  rows: number;
  bytes: number;
}

/** The SQL of a Parquet file's metadata that hold `meta`. */
export function metadataSql(meta: CorpusMeta): string {
  const value = JSON.stringify({ version: VERSION, ...meta });
  return `{'aded.corpus': ${literal(value)}}`;
}

/** Metadata of a corpus file. @throws AdedError ADED_CORPUS when it is missing, damaged or no corpus */
export async function readCorpusFile(database: Database, file: string): Promise<CorpusFile> {
  const handle = await open(file, "r").catch((error: NodeJS.ErrnoException) => {
    const why = error.code === "ENOENT" ? "there is no corpus" : "can't open the corpus";
    throw new AdedError("ADED_CORPUS", `${why} ${file}`, {
      hint: "make one with: npx aded corpus build",
      cause: error,
    });
  });
  const { size } = await handle.stat().finally(() => handle.close());
  if (!(await isWholeParquet(file))) throw damaged(file, "it is no whole Parquet file");
  const source = literal(file);
  const [found] = await database
    .rows<{ value: string }>(
      `SELECT decode(value) AS value FROM parquet_kv_metadata(${source}) WHERE decode(key) = 'aded.corpus'`,
      file,
    )
    .catch((error: unknown) => {
      throw damaged(file, "its metadata can't be read", error);
    });
  if (found === undefined) {
    throw new AdedError("ADED_CORPUS", `${file} is a Parquet file, but no corpus`, {
      hint: "make one with: npx aded corpus build",
    });
  }
  const { version, ...meta } = parseMeta(found.value, file);
  if (version !== VERSION) {
    throw new AdedError(
      "ADED_CORPUS",
      `${file} is a corpus of version ${version}, known here is ${VERSION}`,
      {
        hint: "build it anew",
      },
    );
  }
  const [{ rows }] = await database.rows<{ rows: number }>(
    `SELECT num_rows AS rows FROM parquet_file_metadata(${source})`,
    file,
  );
  return { ...meta, file, rows, bytes: size };
}

/** Description of a folder of parts, as `build --parts` and the Spark job write it. It is written last. */
export const PARTS_DESCRIPTION = "_corpus.json";

/** A corpus whose counts are still in parts: a folder of Parquet files with their description. */
export interface CorpusParts extends CorpusMeta {
  /** The folder, as it was named. */
  file: string;
  /** The Parquet files in it. */
  files: string[];
}

/** @throws AdedError ADED_CORPUS when the folder has no description or no parts */
export async function readCorpusParts(folder: string): Promise<CorpusParts> {
  const names = await readdir(folder);
  const files = names.filter((name) => name.endsWith(".parquet")).sort();
  if (!names.includes(PARTS_DESCRIPTION) || files.length === 0) {
    throw new AdedError("ADED_CORPUS", `${folder} holds no finished parts of a corpus`, {
      hint: `they are made by: npx aded corpus build --parts, or by the Spark job; ${PARTS_DESCRIPTION} is written last`,
    });
  }
  const meta = JSON.parse(await readFile(path.join(folder, PARTS_DESCRIPTION), "utf8")) as CorpusMeta;
  return { ...meta, file: folder, files: files.map((name) => path.join(folder, name)) };
}

function parseMeta(text: string, file: string): CorpusMeta & { version: number } {
  try {
    return JSON.parse(text) as CorpusMeta & { version: number };
  } catch (error) {
    throw damaged(file, "its metadata can't be read", error);
  }
}

/** What is true of a corpus wherever it lies. */
export function metaOf({ file: _file, rows: _rows, bytes: _bytes, ...meta }: CorpusFile): CorpusMeta {
  return meta;
}

/** @throws AdedError ADED_CORPUS that names two whose vocabularies differ */
export function requireOneVocabulary(
  corpora: readonly Pick<CorpusFile, "file" | "vocabHash" | "model">[],
): void {
  const [first] = corpora;
  for (const other of corpora) {
    if (other.vocabHash === first.vocabHash) continue;
    throw new AdedError(
      "ADED_CORPUS",
      `${first.file} belongs to the vocabulary ${first.vocabHash} (${first.model}), ${other.file} to ${other.vocabHash} (${other.model})`,
      { hint: "token ids mean other texts there: build both with the tokenizer of one model" },
    );
  }
}

export function damaged(file: string, why: string, cause?: unknown): AdedError {
  return new AdedError("ADED_CORPUS", `${file} is damaged: ${why}`, {
    hint: "build it anew, or fetch it again",
    cause,
  });
}

/** A folder beside the file to be made, for all that is half made; removed at the end. */
export interface WorkFolder {
  path: string;
  remove(): Promise<void>;
}

/**
 * Makes the work folder of `target` and removes those that killed processes left. Called under the lock of `target`.
 * @param base where to make it. @default beside `target`
 */
export async function makeWorkFolder(target: string, base = path.dirname(target)): Promise<WorkFolder> {
  await mkdir(base, { recursive: true });
  const mark = createHash("sha256").update(target).digest("hex").slice(0, 8);
  const prefix = `.${path.basename(target)}.${mark}-`;
  for (const name of await readdir(base)) {
    if (name.startsWith(prefix) && name.endsWith(".work")) {
      await rm(path.join(base, name), { recursive: true, force: true });
    }
  }
  const folder = path.join(base, `${prefix}${randomBytes(4).toString("hex")}.work`);
  await mkdir(folder);
  return { path: folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** Gives a finished file its name. */
export async function commitFile(draft: string, target: string): Promise<void> {
  await syncFile(draft);
  await rename(draft, target);
  const folder = await open(path.dirname(target), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

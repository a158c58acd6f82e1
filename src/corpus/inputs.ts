/** Which files a corpus is made from: files, folders (searched in order of their names), standard input. */
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { AdedError } from "../errors.ts";

export interface Input {
  /** As it is named in messages and in the corpus. */
  name: string;
  /** undefined: standard input. */
  path?: string;
  /** As it lies on the disk; 0 if unknown. */
  bytes: number;
}

export interface InputOptions {
  /** Patterns for the names of files in folders (* and ? match); none: `endings`. */
  include?: readonly string[];
  /** Endings of the files to take from folders when nothing is included by name; none: all files. */
  endings?: readonly string[];
}

/** Endings of files that hold records; each may be followed by .gz or .zst. */
export const RECORD_ENDINGS = [".json", ".jsonl", ".ndjson", ".parquet"] as const;

/**
 * @param names files and folders; "-" is standard input
 * @throws AdedError ADED_CORPUS when a name is missing on the disk or nothing is found
 */
export async function findInputs(names: readonly string[], options: InputOptions = {}): Promise<Input[]> {
  const inputs: Input[] = [];
  for (const name of names) {
    if (name === "-") {
      inputs.push({ name: "standard input", bytes: 0 });
      continue;
    }
    const found = await stat(name).catch(() => undefined);
    if (found === undefined) {
      throw new AdedError("ADED_CORPUS", `there is no file or folder ${name}`, { hint: "check the path" });
    }
    if (found.isDirectory()) inputs.push(...(await walk(name, options)));
    else inputs.push({ name, path: path.resolve(name), bytes: found.size });
  }
  if (inputs.length === 0) {
    const wanted = options.include?.join(", ") ?? options.endings?.map((end) => `*${end}`).join(", ");
    throw new AdedError("ADED_CORPUS", `no file ${wanted ? `(${wanted}) ` : ""}in ${names.join(", ")}`, {
      hint: "name the files themselves, or say with --include which files of a folder to take",
    });
  }
  return inputs;
}

async function walk(folder: string, options: InputOptions): Promise<Input[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  entries.sort((x, y) => (x.name < y.name ? -1 : 1));
  const inputs: Input[] = [];
  for (const entry of entries) {
    // hidden folders hold histories and caches, no texts
    if (entry.name.startsWith(".")) continue;
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) inputs.push(...(await walk(full, options)));
    else if (entry.isFile() && wanted(entry.name, options)) {
      inputs.push({ name: full, path: path.resolve(full), bytes: (await stat(full)).size });
    }
  }
  return inputs;
}

function wanted(name: string, { include, endings }: InputOptions): boolean {
  if (include !== undefined && include.length > 0)
    return include.some((pattern) => toRegExp(pattern).test(name));
  if (endings === undefined || endings.length === 0) return true;
  const plain = plainName(name);
  return endings.some((end) => plain.endsWith(end));
}

/** The name in lower case, without the ending of a compression. */
export function plainName(name: string): string {
  return name.toLowerCase().replace(/\.(gz|zst|zstd)$/, "");
}

function toRegExp(pattern: string): RegExp {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll("*", ".*").replaceAll("?", ".")}$`, "i");
}

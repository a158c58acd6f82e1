/**
 * A journal: one JSON line per finished piece of work, appended as it is done, so that a run that is broken off goes on where it
 * stopped. The first line holds the run's options; another run's journal is refused. A torn last line is dropped.
 */
import { appendFile, readFile, writeFile } from "node:fs/promises";
import { AdedError, messageOf } from "../errors.ts";

export class Journal<T> {
  readonly entries: T[];
  readonly #path: string;

  private constructor(path: string, entries: T[]) {
    this.#path = path;
    this.entries = entries;
  }

  /** @throws AdedError ADED_EVAL when it belongs to a run with other options, or cannot be read or written */
  static async open<T>(path: string, options: object): Promise<Journal<T>> {
    const head = JSON.stringify(options);
    let text = "";
    try {
      text = await readFile(path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw failure(path, error);
    }
    const lines = text.split("\n");
    lines.pop(); // what follows the last line break is torn or empty
    if (lines.length > 0 && lines[0] !== head) {
      throw new AdedError(
        "ADED_EVAL",
        `${path} belongs to a run with other options: ${lines[0].slice(0, 300)}`,
        {
          hint: "Give the same options as then to go on with it, or another folder after --out.",
        },
      );
    }
    const entries = lines.slice(1).map((line) => JSON.parse(line) as T);
    const kept = [head, ...lines.slice(1)].map((line) => `${line}\n`).join("");
    await writeFile(path, kept).catch((error: unknown) => {
      throw failure(path, error);
    });
    return new Journal(path, entries);
  }

  async append(entry: T): Promise<void> {
    this.entries.push(entry);
    await appendFile(this.#path, `${JSON.stringify(entry)}\n`).catch((error: unknown) => {
      throw failure(this.#path, error);
    });
  }
}

function failure(path: string, cause: unknown): AdedError {
  return new AdedError("ADED_EVAL", `cannot use ${path}: ${messageOf(cause)}`, {
    hint: "Name a folder that can be written to after --out.",
    cause,
  });
}

/** JSONL with every field as it came. @throws AdedError ADED_EVAL with the line that is wrong */
export async function readJsonLines(path: string): Promise<Record<string, unknown>[]> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new AdedError("ADED_EVAL", `cannot read ${path}: ${messageOf(error)}`, { cause: error });
  });
  return text.split("\n").flatMap((line, i) => {
    if (line.trim() === "") return [];
    try {
      const value: unknown = JSON.parse(line);
      if (typeof value === "object" && value !== null) return [value as Record<string, unknown>];
    } catch {
      // Told below.
    }
    throw new AdedError("ADED_EVAL", `${path}:${i + 1} is no JSON object`, { hint: "Give a JSONL file." });
  });
}

export function jsonLines(values: readonly object[]): string {
  return values.map((value) => `${JSON.stringify(value)}\n`).join("");
}

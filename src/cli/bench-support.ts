/** What the bench commands share: numbers on the command line, and files that reports go to. */
import { access, constants, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { AdedError, messageOf } from "../errors.ts";

/** Parser of an option's value. @throws AdedError ADED_USAGE unless it is an integer of at least `min` */
export function integer(flag: string, min: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!Number.isInteger(number) || number < min) {
      throw new AdedError("ADED_USAGE", `${flag} is "${value}"`, {
        hint: `Give an integer of at least ${min}.`,
      });
    }
    return number;
  };
}

/** Found out before the measurement, not after it. */
export async function checkFolder(path: string): Promise<void> {
  await access(dirname(path), constants.W_OK).catch((error: unknown) => {
    throw unwritable(path, error);
  });
}

export async function save(path: string, text: string): Promise<void> {
  await writeFile(path, text).catch((error: unknown) => {
    throw unwritable(path, error);
  });
}

function unwritable(path: string, cause: unknown): AdedError {
  return new AdedError("ADED_BENCH", `cannot write ${path}: ${messageOf(cause)}`, {
    hint: "Name a file in a folder that exists and can be written to.",
    cause,
  });
}

/** What was typed, with the key left out. */
export function commandLine(argv: readonly string[]): string {
  const words = argv.slice(2);
  const shown = words.map((word, i) =>
    words[i - 1] === "--api-key" ? "***" : word.replace(/^--api-key=.*/s, "--api-key=***"),
  );
  return ["aded", ...shown].join(" ");
}

/** Broken records and files of a build: all are counted, the first ones named; or the first one ends the build. */
import { AdedError } from "../errors.ts";
import type { Input } from "./inputs.ts";

export interface NamedFault {
  file: string;
  /** From 1; in Parquet the row. 0: the file as a whole. */
  line: number;
  message: string;
}

/** Faults that are named; the others are only counted. */
const MOST_NAMED = 20;

export class BuildFaults {
  readonly #fatal: boolean;
  /** The first faults. */
  readonly named: NamedFault[] = [];
  /** All faults. */
  count = 0;

  /** @param fatal the first fault ends the build */
  constructor(fatal: boolean) {
    this.#fatal = fatal;
  }

  /** @throws AdedError ADED_CORPUS when faults are fatal */
  add(input: Input, line: number, message: string): void {
    const fault = { file: input.name, line, message };
    if (this.#fatal) {
      throw new AdedError("ADED_CORPUS", faultText(fault), {
        hint: "mend or remove it, or leave --on-error fail out to skip what is broken",
      });
    }
    this.count++;
    if (this.named.length < MOST_NAMED) this.named.push(fault);
  }
}

export function faultText({ file, line, message }: NamedFault): string {
  return `${file}${line > 0 ? `:${line}` : ""}: ${message}`;
}

/** Reads the values of options; what is no such value is told with the option's name. */
import { AdedError } from "../errors.ts";
import { parseBytes } from "../options.ts";

/** A whole number of at least `min`. */
export function atLeast(flag: string, min: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (value.trim() !== "" && Number.isInteger(number) && number >= min) return number;
    throw new AdedError("ADED_USAGE", `${flag} is "${value}"`, { hint: `give a whole number from ${min}` });
  };
}

/** A number of at least `min`. */
export function decimal(flag: string, min: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (value.trim() !== "" && Number.isFinite(number) && number >= min) return number;
    throw new AdedError("ADED_USAGE", `${flag} is "${value}"`, { hint: `give a number from ${min}` });
  };
}

/** A size: bytes, or a text such as 512MiB. */
export function size(flag: string): (value: string) => number {
  return (value) => {
    const bytes = parseBytes(value);
    if (bytes !== undefined) return bytes;
    throw new AdedError("ADED_USAGE", `${flag} is "${value}"`, { hint: "write e.g. 512MiB or 2GiB" });
  };
}

/** How commands speak: results on stdout (text or JSON), errors as message and hint on stderr. */
import { AdedError, messageOf } from "../errors.ts";

/** One line of JSON on stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

export function printLine(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Says what went wrong; the stack only with ADED_DEBUG=1. Returns the exit status. */
export function reportError(error: unknown): number {
  const known = error instanceof AdedError;
  const status = known ? error.exitStatus : 1;
  if (status === 130) {
    process.stderr.write("aded: interrupted\n");
    return status;
  }
  process.stderr.write(`aded: ${messageOf(error)}\n`);
  if (known && error.hint) process.stderr.write(`  ${error.hint.replaceAll("\n", "\n  ")}\n`);
  if (process.env.ADED_DEBUG === "1") {
    process.stderr.write(`${error instanceof Error ? error.stack : ""}\n`);
    if (error instanceof Error && error.cause) process.stderr.write(`cause: ${String(error.cause)}\n`);
  } else if (!known) {
    process.stderr.write("  this is a fault of aded; ADED_DEBUG=1 shows where\n");
  }
  return status;
}

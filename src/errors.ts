/**
 * The catalogue of errors. Each has a stable code, a message that holds the bad value, and a hint that says what to do.
 * Imports nothing of ours.
 */

export type ErrorCode =
  | "ADED_USAGE"
  | "ADED_CONFIG"
  | "ADED_TOOLS_MISSING"
  | "ADED_PATCH"
  | "ADED_BUILD"
  | "ADED_DOWNLOAD"
  | "ADED_CHECKSUM"
  | "ADED_PORT_TAKEN"
  | "ADED_ENGINE_START"
  | "ADED_ENGINE_DIED"
  | "ADED_ENGINE_UNREACHABLE"
  | "ADED_MODEL_UNKNOWN"
  | "ADED_MEMORY"
  | "ADED_IMPORT"
  | "ADED_LINK"
  | "ADED_LINK_FRAME"
  | "ADED_BENCH"
  | "ADED_EVAL"
  | "ADED_CORPUS"
  | "ADED_INTERRUPTED";

export interface AdedErrorOptions {
  /** What the user should do about it, one sentence. */
  hint?: string;
  cause?: unknown;
}

export class AdedError extends Error {
  readonly code: ErrorCode;
  readonly hint?: string;

  constructor(code: ErrorCode, message: string, options: AdedErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AdedError";
    this.code = code;
    this.hint = options.hint;
  }

  /** Exit status of the command line for this error: 2 used wrongly, 130 interrupted, 1 anything else. */
  get exitStatus(): number {
    if (this.code === "ADED_USAGE" || this.code === "ADED_CONFIG") return 2;
    if (this.code === "ADED_INTERRUPTED") return 130;
    return 1;
  }
}

/** A short text for any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

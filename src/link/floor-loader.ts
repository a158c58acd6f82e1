/**
 * The corpora of a model, on the main thread: reads them in the background, in a process of its own, keeps the floor they make for every
 * drafter's thread that comes, and knows how they fare.
 */
import type { WeightedCorpus } from "../corpus/floor-messages.ts";
import { type LoadedFloor, loadFloor } from "../corpus/floor-source.ts";
import type { CorporaSnapshot } from "../engine/engine.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { LinkLog } from "./client.ts";

export interface CorporaOptions {
  corpora: readonly WeightedCorpus[];
  /** Successors kept per row. @default 12 */
  topK?: number;
  /** Whether somebody is being answered. @default nobody ever */
  busy?: () => boolean;
}

/** Share of the matrix's memory that corpora may take. */
const SHARE = 0.5;

/** Bytes that the floor of corpora may take, of a matrix's bound. */
export function floorBound(matrixBytes: number): number {
  return Math.floor(matrixBytes * SHARE);
}

export interface FloorLoaderOptions extends CorporaOptions {
  /** Bytes that the floor may take. */
  bound: number;
  log: LinkLog;
  /** Told once when there is a floor, or why there is none. */
  onEnd(): void;
}

export class FloorLoader {
  readonly #options: FloorLoaderOptions;
  readonly #abort = new AbortController();
  #floor: LoadedFloor | undefined;
  #state: CorporaSnapshot["state"] = "reading";
  #reason: string | undefined;

  constructor(options: FloorLoaderOptions) {
    this.#options = options;
  }

  /** Undefined until it is read, and when it can't be used. */
  get floor(): LoadedFloor | undefined {
    return this.#floor;
  }

  /** True until they are read, or known to be of no use. */
  get reading(): boolean {
    return this.#state === "reading";
  }

  /** False when they can't be read, or not be used. */
  get usable(): boolean {
    return this.#state === "reading" || this.#state === "used";
  }

  /** Starts reading and returns at once. */
  start(): void {
    void this.#load();
  }

  stop(): void {
    this.#abort.abort();
  }

  /** The drafter can't use it: the model has another vocabulary, or there is no room. */
  refuse(reason: string, hint?: string): void {
    if (this.#state === "refused") return;
    this.#floor = undefined;
    this.#fail("refused", reason, hint);
  }

  snapshot(): CorporaSnapshot {
    const { corpora } = this.#options;
    const { rows = 0, dropped = 0, bytes = 0, seconds } = this.#floor ?? {};
    return {
      state: this.#state,
      reason: this.#reason,
      files: corpora.map(({ file }) => file),
      rows,
      rows_left_out: dropped,
      bytes,
      seconds: seconds === undefined ? null : Math.round(seconds * 100) / 100,
    };
  }

  async #load(): Promise<void> {
    const { corpora, topK = 12, busy = () => false, bound, log, onEnd } = this.#options;
    try {
      this.#floor = await loadFloor(
        { corpora: [...corpora], topK, bound },
        { signal: this.#abort.signal, busy },
      );
      this.#state = "used";
      const { rows, bytes, dropped, seconds } = this.#floor;
      log.info(
        { files: corpora.map(({ file }) => file), rows, bytes, dropped, seconds },
        "the corpora are read",
      );
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      this.#fail("failed", messageOf(error), error instanceof AdedError ? error.hint : undefined);
    }
    onEnd();
  }

  #fail(state: "failed" | "refused", reason: string, hint?: string): void {
    this.#state = state;
    this.#reason = reason;
    const names = this.#options.corpora.map(({ file }) => file).join(", ");
    this.#options.log.error(
      { corpora: names, reason, hint },
      "the corpora are not used, drafting goes on without",
    );
  }
}

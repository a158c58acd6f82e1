/**
 * What it costs to verify n tokens at once, and whether the logits are those of one-by-one decoding. Two builds are
 * measured turn by turn, in an order that chance decides (seeded), so that whatever else the machine does hits both.
 */
import { Random } from "../drafter/random.ts";
import { type BatchCheck, BatchCost, type BatchCostOptions } from "./verify-tool.ts";

/** Tokens of a prompt that is processed for comparison. */
export const PREFILL = 512;
/** Largest batch: llama-batch-cost takes no more at once. */
export const MAX_WIDTH = 512;
/** Tokens whose logits one check compares, if the batch is not larger. */
const CHECKED_TOKENS = 64;
/** Batches that count in one turn. One more goes before them: it finds the caches as the other build has left them. */
const PER_TURN = 3;
/** Read to see what memory gives: more than a third-level cache holds. */
const MEMORY_MIB = 256;

export interface VerifyOptions {
  /** Ascending, 1 among them. */
  widths: readonly number[];
  /** Tokens in the cache while it is measured. */
  depth: number;
  /** Depths at which the own build is checked, beside `depth`. */
  checkDepths: readonly number[];
  /** 0: only the checks. */
  rounds: number;
  seed: number;
}

/** One build, and how it runs. */
export type VerifyBuild = Pick<BatchCostOptions, "libraries" | "batchInvariant">;

export interface VerifySetup extends Omit<BatchCostOptions, "libraries" | "batchInvariant" | "cells"> {
  own: VerifyBuild;
  /** Undefined: only the own build is measured. */
  stock?: VerifyBuild;
}

export type Side = "own" | "stock";

/** What is measured in a turn: the width, or `prefill`. */
export type Turn = string;

export interface DepthCheck extends BatchCheck {
  depth: number;
}

/** µs: by side, by turn, by round. */
export type VerifySamples = Record<Side, Record<Turn, number[][]>>;

export interface VerifyRun {
  checks: Record<Side, DepthCheck[]>;
  /** Whether all checks of the own build were made. */
  checked: boolean;
  samples: VerifySamples;
  /** What reading memory gave, GB/s: once a round. */
  memory: number[];
  /** What the libraries were built for; null: not yet known. */
  system: Record<Side, string | null>;
  /** Why it ended early; what was measured until then counts. */
  stopped?: unknown;
}

export interface VerifyProgress {
  done: number;
  total: number;
  note: string;
}

/** Measures one model. Whatever ends it early (Ctrl-C, a child that dies) stands in the result, beside what was measured. */
export async function runVerify(
  setup: VerifySetup,
  options: VerifyOptions,
  onProgress: (progress: VerifyProgress) => void = () => {},
): Promise<VerifyRun> {
  const run: VerifyRun = {
    checks: { own: [], stock: [] },
    checked: false,
    samples: { own: {}, stock: {} },
    memory: [],
    system: { own: null, stock: null },
  };
  const tools: Partial<Record<Side, BatchCost>> = {};
  try {
    for (const side of ["own", "stock"] as const) {
      const build = setup[side];
      if (build === undefined) continue;
      onProgress({ done: 0, total: 0, note: `loading (${side})` });
      const tool = await BatchCost.start({ ...setup, ...build, cells: cellsFor(options) });
      tools[side] = tool;
      run.system[side] = await tool.system();
    }
    await new Measurement(tools, options, run, onProgress).run();
  } catch (error) {
    run.stopped = error;
  } finally {
    await Promise.all(Object.values(tools).map((tool) => tool.close()));
  }
  return run;
}

/** Room for everything that is asked, rounded up as the engine does. */
function cellsFor({ widths, depth, checkDepths }: VerifyOptions): number {
  const deepest = Math.max(depth, ...checkDepths);
  return Math.ceil((deepest + Math.max(PREFILL, ...widths)) / 256) * 256;
}

class Measurement {
  readonly #tools: Partial<Record<Side, BatchCost>>;
  readonly #options: VerifyOptions;
  readonly #run: VerifyRun;
  readonly #onProgress: (progress: VerifyProgress) => void;
  readonly #sides: Side[];
  readonly #turns: Turn[];
  readonly #total: number;
  #done = 0;

  constructor(
    tools: Partial<Record<Side, BatchCost>>,
    options: VerifyOptions,
    run: VerifyRun,
    onProgress: (progress: VerifyProgress) => void,
  ) {
    this.#tools = tools;
    this.#options = options;
    this.#run = run;
    this.#onProgress = onProgress;
    this.#sides = (["own", "stock"] as const).filter((side) => tools[side] !== undefined);
    this.#turns = [...options.widths.map(String), "prefill"];
    const { widths, checkDepths, rounds } = options;
    const checks = widths.length * (this.#sides.length + checkDepths.length);
    const rest = rounds === 0 ? 0 : this.#turns.length * this.#sides.length * (rounds + 1);
    this.#total = checks + rest;
  }

  async run(): Promise<void> {
    const { depth, checkDepths, rounds, seed } = this.#options;
    for (const each of [...checkDepths.filter((other) => other !== depth), depth]) {
      await this.#check("own", each);
    }
    this.#run.checked = true;
    if (this.#sides.includes("stock")) await this.#check("stock", depth);
    if (rounds === 0) return;
    const plan = this.#turns.flatMap((turn) => this.#sides.map((side) => ({ turn, side })));
    for (const { turn, side } of plan) {
      await this.#measure(side, turn, 1);
      this.#step("warming up");
    }
    const random = new Random(seed);
    const own = this.#tools.own as BatchCost;
    for (let round = 0; round < rounds; round++) {
      this.#run.memory.push(...(await own.memory(MEMORY_MIB, PER_TURN)));
      // both builds of a turn follow each other directly; which comes first is chance too
      for (const turn of random.shuffle([...this.#turns])) {
        for (const side of random.shuffle([...this.#sides])) {
          const us =
            turn === "prefill"
              ? await this.#measure(side, turn, 1)
              : (await this.#measure(side, turn, 1 + PER_TURN)).slice(1);
          const rows = this.#run.samples[side];
          rows[turn] ??= [];
          rows[turn][round] = us;
          this.#step(`round ${round + 1} of ${rounds}`);
        }
      }
    }
  }

  async #check(side: Side, depth: number): Promise<void> {
    const tool = this.#tools[side] as BatchCost;
    await tool.fill(depth);
    for (const n of this.#options.widths) {
      this.#run.checks[side].push({ depth, ...(await tool.check(n, Math.max(CHECKED_TOKENS, n))) });
      this.#step(`checking, depth ${depth} (${side})`);
    }
  }

  #measure(side: Side, turn: Turn, reps: number): Promise<number[]> {
    const tool = this.#tools[side] as BatchCost;
    return turn === "prefill" ? tool.prefill(PREFILL, reps) : tool.time(Number(turn), reps);
  }

  #step(note: string): void {
    this.#onProgress({ done: ++this.#done, total: this.#total, note });
  }
}

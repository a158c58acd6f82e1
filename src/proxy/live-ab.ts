/**
 * The A/B that runs all the time: of the requests that do not ask for an arm themselves, a seeded share runs without drafts, and
 * the times per token of both arms give the live speed-up with its interval. The engine's own `timings`, which end every
 * answer of llama-server, are read from the bytes that pass by; nothing else of them is looked at or kept.
 */
import { createHash } from "node:crypto";
import type { Arm } from "./headers.ts";

export interface LiveAbOptions {
  /** Share of requests without drafts, 0 … 1; 0: no A/B. */
  share: number;
  /** What decides: each request's own content, or its key, so that one client always has the same arm. */
  by: "request" | "key";
  seed: number;
}

export interface LiveArm {
  requests: number;
  /** Tokens after the first of each answer, and the time that they took. */
  tokens: number;
  ms_per_token: number | null;
}

export interface LiveAbReport extends LiveAbOptions {
  arms: Record<Arm, LiveArm>;
  /** Time per token without drafts / with drafts; null: too little was measured. */
  ratio: number | null;
  /** 95 %. */
  ci: [low: number, high: number] | null;
}

/** The interval is a normal one: fewer requests of an arm would not carry it. */
const LEAST = 20;
const Z = 1.96;

/** Sums over requests of tokens t and time m: enough for the ratio Σm / Σt and its variance. */
class ArmSums {
  n = 0;
  t = 0;
  m = 0;
  tt = 0;
  mm = 0;
  tm = 0;

  add(tokens: number, ms: number): void {
    this.n++;
    this.t += tokens;
    this.m += ms;
    this.tt += tokens * tokens;
    this.mm += ms * ms;
    this.tm += tokens * ms;
  }

  get rate(): number {
    return this.m / this.t;
  }

  /** Variance of log(Σm / Σt), by linearisation (Cochran, Sampling Techniques, 1977, section 6.3). */
  get logVariance(): number {
    const { n, m, rate } = this;
    const squares = this.mm - 2 * rate * this.tm + rate * rate * this.tt;
    return (Math.max(0, squares) * n) / (n - 1) / (m * m);
  }
}

export class LiveAb {
  readonly #options: LiveAbOptions;
  readonly #sums = new Map<string, Record<Arm, ArmSums>>();

  constructor(options: LiveAbOptions) {
    this.#options = options;
  }

  get enabled(): boolean {
    return this.#options.share > 0;
  }

  /** The arm of a request that asks for none. The same request (or key) always has the same one. */
  choose({ scope, body }: { scope: string; body: Buffer }): Arm {
    const { share, by, seed } = this.#options;
    if (share <= 0) return "on";
    const hash = createHash("sha256").update(`${seed}\0`);
    const digest = hash.update(by === "key" ? scope : body).digest();
    return digest.readUInt32BE(0) / 2 ** 32 < share ? "off" : "on";
  }

  /**
   * Counts a complete answer by the end of its body, Latin-1: the engine's `timings` stand in the last event of a stream and at the end
   * of a whole answer.
   */
  answered(model: string, arm: Arm, tail: string): void {
    const at = tail.lastIndexOf('"timings":');
    if (at < 0) return;
    const text = tail.slice(at);
    const figure = (name: string): number =>
      Number(new RegExp(`"${name}":\\s*(-?[\\d.]+(?:e[-+]?\\d+)?)`).exec(text)?.[1]);
    // the first token comes with the prompt
    const tokens = figure("predicted_n") - 1;
    const ms = figure("predicted_ms");
    if (tokens >= 1 && ms > 0) this.count(model, arm, tokens, ms);
  }

  count(model: string, arm: Arm, tokens: number, ms: number): void {
    let sums = this.#sums.get(model);
    if (sums === undefined) {
      sums = { on: new ArmSums(), off: new ArmSums() };
      this.#sums.set(model, sums);
    }
    sums[arm].add(tokens, ms);
  }

  /** Undefined when there is no A/B. */
  report(model: string): LiveAbReport | undefined {
    if (!this.enabled) return undefined;
    const { on, off } = this.#sums.get(model) ?? { on: new ArmSums(), off: new ArmSums() };
    const arm = (sums: ArmSums): LiveArm => ({
      requests: sums.n,
      tokens: sums.t,
      ms_per_token: sums.t > 0 ? sums.rate : null,
    });
    const arms = { on: arm(on), off: arm(off) };
    if (on.t === 0 || off.t === 0 || on.m === 0) return { ...this.#options, arms, ratio: null, ci: null };
    const ratio = off.rate / on.rate;
    const spread = Z * Math.sqrt(on.logVariance + off.logVariance);
    const enough = on.n >= LEAST && off.n >= LEAST;
    return {
      ...this.#options,
      arms,
      ratio,
      ci: enough ? [ratio * Math.exp(-spread), ratio * Math.exp(spread)] : null,
    };
  }
}

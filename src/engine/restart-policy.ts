/** When to start a process again that died, and when to give up. Pure: the caller brings the clock. */

export interface RestartPolicyOptions {
  /** Wait before the first restart, ms; doubled for each further one. @default 500 */
  firstDelayMs?: number;
  /** @default 30000 */
  maxDelayMs?: number;
  /** That many deaths within `windowMs` and it is given up. @default 5 */
  maxDeaths?: number;
  /** Also: after running for so long, a death counts as the first one again. @default 60000 */
  windowMs?: number;
}

export class RestartPolicy {
  readonly #firstDelayMs: number;
  readonly #maxDelayMs: number;
  readonly #maxDeaths: number;
  readonly #windowMs: number;
  #deaths: number[] = [];
  #inARow = 0;

  constructor(options: RestartPolicyOptions = {}) {
    this.#firstDelayMs = options.firstDelayMs ?? 500;
    this.#maxDelayMs = options.maxDelayMs ?? 30_000;
    this.#maxDeaths = options.maxDeaths ?? 5;
    this.#windowMs = options.windowMs ?? 60_000;
  }

  /**
   * @param now ms of any steady clock; @param readyFor how long the process had been ready, ms (0: it never was)
   * @returns ms to wait before the restart; undefined: give up
   */
  onDeath(now: number, readyFor: number): number | undefined {
    if (readyFor >= this.#windowMs) this.#inARow = 0;
    this.#inARow++;
    this.#deaths = this.#deaths.filter((at) => now - at < this.#windowMs);
    this.#deaths.push(now);
    if (this.#deaths.length >= this.#maxDeaths) return undefined;
    return Math.min(this.#maxDelayMs, this.#firstDelayMs * 2 ** (this.#inARow - 1));
  }

  /** Forgets all deaths, for a start by hand. */
  reset(): void {
    this.#deaths = [];
    this.#inARow = 0;
  }
}

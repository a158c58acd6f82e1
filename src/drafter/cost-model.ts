/**
 * What a forward pass of n tokens costs. Starts from the engine's measured table, interpolated between its points, and follows what the
 * steps really take: each measurement moves its own n fast and, since the machine's speed and the context's length change all of
 * them, every other n slowly by the same ratio. A size whose own cost is not settled yet moves itself only: what the table had wrong about it
 * is no news of the others, and a plain step taken for dearer than it is makes drafts look as if they paid.
 */

/** Weight of a measurement for its own n. */
const OWN_RATE = 0.15;
/** The same for the first ones. */
const FIRST_RATE = 0.3;
/** Measurements after which the cost of an n is settled. */
const SETTLED = 12;
/** Weight of a measurement for all n. */
const COMMON_RATE = 0.05;
/** Steps after which a pass of one token is to be measured again: few at first, since the table may be off, then ever more. */
const FIRST_PLAIN = 16;
const MOST_PLAIN = 256;
/** One measurement counts as at most this ratio off, so that a hiccup does not upset the table. */
const MOST_RATIO = 1.3;

export class CostModel {
  /** Largest n known. */
  readonly most: number;
  private readonly cost: Float64Array;
  /** Measurements of each n. */
  private readonly seen: Uint16Array;
  private scale = 1;
  private sincePlain = 0;
  private plainEvery = FIRST_PLAIN;

  /**
   * @param tokens ascending numbers of tokens
   * @param us µs of a forward pass of that many, same length; may be empty: then every pass costs the same
   * @param most largest n that will be asked for
   */
  constructor(tokens: Int32Array, us: Float32Array, most: number) {
    this.most = most;
    this.cost = new Float64Array(most + 1);
    this.seen = new Uint16Array(most + 1);
    for (let n = 1; n <= most; n++) this.cost[n] = interpolate(tokens, us, n);
  }

  /** µs of a forward pass of n tokens, 1 … most. */
  us(n: number): number {
    return this.cost[Math.min(Math.max(n, 1), this.most)] * this.scale;
  }

  /** True when the cost of a plain step, with which every draft is compared, was not measured for long. */
  get wantsPlain(): boolean {
    return this.sincePlain >= this.plainEvery;
  }

  /** Counts a measured pass. Ignores what cannot be one. */
  observe(n: number, us: number): void {
    if (!(us > 0) || n < 1 || n > this.most) return;
    if (n > 1) {
      this.sincePlain++;
    } else {
      if (this.wantsPlain) this.plainEvery = Math.min(MOST_PLAIN, this.plainEvery * 2);
      this.sincePlain = 0;
    }
    const ratio = Math.min(MOST_RATIO, Math.max(1 / MOST_RATIO, us / this.us(n)));
    const settled = this.seen[n] >= SETTLED;
    if (!settled) this.seen[n]++;
    if (settled || n === 1) this.scale *= ratio ** COMMON_RATE;
    this.cost[n] *= ratio ** (settled ? OWN_RATE : FIRST_RATE);
  }

  /** The least that one more token can cost, on average, going from n to any larger number: µs per token. */
  leastSlope(n: number): number {
    const from = this.us(n);
    let least = Number.POSITIVE_INFINITY;
    for (let m = n + 1; m <= this.most; m++) {
      const slope = (this.us(m) - from) / (m - n);
      if (slope < least) least = slope;
    }
    return least > 0 && least < Number.POSITIVE_INFINITY ? least : 0;
  }
}

function interpolate(tokens: Int32Array, us: Float32Array, n: number): number {
  const points = Math.min(tokens.length, us.length);
  if (points === 0) return 1;
  if (n <= tokens[0]) return us[0];
  for (let i = 1; i < points; i++) {
    if (n <= tokens[i]) {
      const share = (n - tokens[i - 1]) / (tokens[i] - tokens[i - 1]);
      return us[i - 1] + share * (us[i] - us[i - 1]);
    }
  }
  return (us[points - 1] * n) / tokens[points - 1];
}

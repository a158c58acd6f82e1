/**
 * What a forward pass of n tokens costs. Starts from the engine's measured table, interpolated between its points, and follows what the
 * steps really take.
 *
 * The table may be wrong, by a factor even, if the machine was busy while the engine measured. So once an n was measured FIRM times, their
 * median takes its place. Then each measurement moves its own n fast and, since the machine's speed and the context's length change all
 * of them, every other n slowly by the same ratio. What is known of some n tells what the table is likely to have wrong about the
 * others: as much, in proportion; a larger pass is hardly cheaper than a smaller one; and dearer than the straight line through what is
 * known it is only believed to be once that was tried, in trees that grow little by little. The cost of a plain step, with which every
 * draft is compared, stands for itself, and is asked for soon, and again whenever another size turns out to be off.
 */

/** Measurements after which an n is known. */
const FIRM = 3;
/** Measurements after which the cost of an n is settled. */
const SETTLED = 12;
/** Weight of a measurement, once its n is settled and before. */
const OWN_RATE = 0.2;
const FIRST_RATE = 0.3;
/** Share of what it moves that is taken to hold for all n. */
const COMMON_SHARE = 0.25;
/** One that took longer than was known counts as at most this ratio off, so that a hiccup does not upset it … */
const MOST_RATIO = 1.3;
/** … but so many of one n in a row are no hiccup. */
const AGREED = 3;
/** Weight of one that took less time than was known by more than that ratio: nothing makes a pass faster than it can be. */
const FAST_RATE = 0.5;
/** Steps after which what is known of an n is to be tried again. */
const STALE = 256;
/** Steps after which a pass without drafts is to be measured again: few at first, then ever more. */
const FIRST_PLAIN = 4;
const MOST_PLAIN = 256;
/** A pass of more tokens may cost so much less than one of fewer. */
const CLIFF = 1.15;

const LOG_MOST = Math.log(MOST_RATIO);

export class CostModel {
  /** Largest n known. */
  readonly most: number;
  /** The engine's table, µs. */
  private readonly table: Float64Array;
  /** Logarithms: of each n, and of what known n cost over what the table says. */
  private readonly log: Float64Array;
  private readonly own: Float64Array;
  /** What each n costs apart from `scale`, µs: what follows from all that is known. */
  private readonly cost: Float64Array;
  /** Measurements of each n, and the logarithms of the first FIRM ones, apart from `scale`. */
  private readonly seen: Uint16Array;
  private readonly first: Float64Array;
  /** How many of the last ones of each n in a row took far too long; and the logarithm of the least far of them. */
  private readonly streak: Uint8Array;
  private readonly least: Float64Array;
  private scale = 1;
  /** Steps; when each n was measured last, or asked for, and after how many it is to be measured again as a plain step. */
  private steps = 0;
  private readonly last: Float64Array;
  private readonly every: Uint16Array;

  /**
   * @param tokens ascending numbers of tokens
   * @param us µs of a forward pass of that many, same length; may be empty: then every pass costs the same
   * @param most largest n that will be asked for
   */
  constructor(tokens: Int32Array, us: Float32Array, most: number) {
    this.most = most;
    this.cost = new Float64Array(most + 1);
    for (let n = 1; n <= most; n++) this.cost[n] = interpolate(tokens, us, n);
    this.table = this.cost.slice();
    this.log = this.cost.map((_, n) => Math.log(n));
    this.own = new Float64Array(most + 1);
    this.seen = new Uint16Array(most + 1);
    this.first = new Float64Array(FIRM * (most + 1));
    this.streak = new Uint8Array(most + 1);
    this.least = new Float64Array(most + 1);
    this.last = new Float64Array(most + 1);
    this.every = new Uint16Array(most + 1).fill(FIRST_PLAIN);
  }

  /** µs of a forward pass of n tokens, 1 … most. */
  us(n: number): number {
    return this.cost[Math.min(Math.max(n, 1), this.most)] * this.scale;
  }

  /** µs of passes of `from`, `from` + 1 … tokens into `out`, one with fewer than `least` tokens as one with that many. */
  list(from: number, least: number, out: Float64Array): void {
    const { cost, most, scale } = this;
    for (let i = 0; i < out.length; i++) out[i] = cost[Math.min(Math.max(from + i, least, 1), most)] * scale;
  }

  /** True when a step of n tokens, all of them roots, is to be plain, since its cost was not measured for long or is in doubt. */
  wantsPlain(n: number): boolean {
    if (n < 1 || n > this.most) return false;
    const since = this.steps - this.last[n];
    if (since >= this.every[n]) return true;
    return since > 1 && this.seen[n] > 0 && (!this.known(n) || this.streak[n] > 0);
  }

  /** A plain step of n tokens was asked for, whether or not it comes to that. */
  askedPlain(n: number): void {
    if (this.steps - this.last[n] >= this.every[n]) this.every[n] = Math.min(MOST_PLAIN, this.every[n] * 2);
    this.last[n] = this.steps;
  }

  /** True while too little is known of passes of n tokens, or for too long, to leave them alone for what they are said to cost. */
  isGuess(n: number): boolean {
    return n >= 1 && n <= this.most && (!this.known(n) || this.steps - this.last[n] >= STALE);
  }

  /** A step passed whose time tells nothing. */
  pass(): void {
    this.steps++;
  }

  /** Counts a measured pass. Ignores what cannot be one. */
  observe(n: number, us: number): void {
    if (!(us > 0) || n < 1 || n > this.most) return;
    this.pass();
    this.last[n] = this.steps;
    const { seen, own, first } = this;
    const settled = seen[n] >= SETTLED;
    if (!this.known(n)) {
      first[FIRM * n + seen[n]] = Math.log(us / this.scale);
      if (++seen[n] === FIRM) own[n] = median3(first, FIRM * n) - Math.log(this.table[n]);
    } else {
      if (!settled) seen[n]++;
      const off = Math.log(us / this.us(n));
      let move = Math.min(LOG_MOST, off) * (settled ? OWN_RATE : FIRST_RATE);
      if (this.agreed(n, off)) {
        move = this.least[n];
        this.every.fill(FIRST_PLAIN);
      } else if (off < -LOG_MOST) move = off * FAST_RATE;
      // Always the same share, up and down: otherwise `scale` would drift from what it stands for.
      const common = settled || n === 1 ? COMMON_SHARE * move : 0;
      this.scale *= Math.exp(common);
      own[n] += move - common;
    }
    this.infer();
  }

  private known(n: number): boolean {
    return this.seen[n] >= FIRM;
  }

  /** Whether n took far too long so often in a row that it is no hiccup. The count starts anew then. */
  private agreed(n: number, off: number): boolean {
    const { streak, least } = this;
    if (off <= LOG_MOST) {
      streak[n] = 0;
      return false;
    }
    least[n] = streak[n] > 0 ? Math.min(least[n], off) : off;
    if (++streak[n] < AGREED) return false;
    streak[n] = 0;
    return true;
  }

  /** What known n tell of the others. */
  private infer(): void {
    const { table, log, own, cost, most } = this;
    let left = 1;
    cost[1] = table[1] * Math.exp(this.known(1) ? own[1] : this.lean(1, Math.log(table[1])));
    for (let right = 2; right <= most + 1; right++) {
      const end = right > most;
      if (!end && !this.known(right)) continue;
      if (!end) cost[right] = table[right] * Math.exp(own[right]);
      const slope = end ? 0 : (own[right] - own[left]) / (log[right] - log[left]);
      for (let n = left + 1; n < right; n++) {
        const guess = table[n] * Math.exp(own[left] + slope * (log[n] - log[left]));
        const straight = this.straight(n, left, end ? 0 : right);
        const inferred = Math.max(cost[n - 1] / CLIFF, Math.min(guess, straight));
        cost[n] = inferred * Math.exp(this.lean(n, Math.log(inferred)));
      }
      left = right;
    }
    let least = Number.POSITIVE_INFINITY;
    for (let n = most; n >= 1; n--) {
      if (this.known(n)) least = Math.min(least, cost[n]);
      cost[n] = Math.min(cost[n], CLIFF * least);
    }
  }

  /** What n costs on the straight line through the known sizes beside it; infinite where there is none. */
  private straight(n: number, left: number, right: number): number {
    const { cost } = this;
    if (right > 0) return cost[left] + ((cost[right] - cost[left]) * (n - left)) / (right - left);
    const slope = left > 1 && this.known(1) ? (cost[left] - cost[1]) / (left - 1) : 0;
    return slope > 0 && n <= 2 * left + 1 ? cost[left] + slope * (n - left) : Number.POSITIVE_INFINITY;
  }

  /** How far the measurements of an n that is not known yet move its cost from what is inferred: the lowest counts, more with each. */
  private lean(n: number, inferred: number): number {
    const { seen, first } = this;
    if (seen[n] === 0 || seen[n] >= FIRM) return 0;
    let lowest = first[FIRM * n];
    for (let i = 1; i < seen[n]; i++) lowest = Math.min(lowest, first[FIRM * n + i]);
    return (Math.min(LOG_MOST, lowest - inferred) * seen[n]) / FIRM;
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

function median3(v: Float64Array, at: number): number {
  const a = v[at];
  const b = v[at + 1];
  const c = v[at + 2];
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
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

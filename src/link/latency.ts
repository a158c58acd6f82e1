/**
 * A sliding window of durations in shared memory: the worker writes one number per step, the main thread sorts a copy when
 * somebody asks. So statistics cost the decode loop nothing. An entry overwritten meanwhile is still a valid sample.
 */
const WINDOW = 4096;

export interface LatencyQuantiles {
  /** µs; null when nothing was measured yet. */
  p50: number | null;
  p99: number | null;
}

export class LatencyRing {
  /** Shared by both sides: a count (uint32), then the window (float32, µs). */
  readonly buffer: SharedArrayBuffer;
  readonly #count: Uint32Array;
  readonly #window: Float32Array;

  /** @param buffer of another ring, to look at the same window. @default a new one */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(4 + WINDOW * 4)) {
    this.buffer = buffer;
    this.#count = new Uint32Array(buffer, 0, 1);
    this.#window = new Float32Array(buffer, 4, WINDOW);
  }

  /** One writer only. @param us duration, µs */
  record(us: number): void {
    const count = this.#count[0];
    this.#window[count % WINDOW] = us;
    this.#count[0] = count + 1;
  }

  /** Quantiles over the last 4096 durations, nearest rank, rounded to 0.1 µs. */
  quantiles(): LatencyQuantiles {
    const n = Math.min(this.#count[0], WINDOW);
    if (n === 0) return { p50: null, p99: null };
    const sorted = this.#window.slice(0, n).sort();
    return { p50: nearestRank(sorted, 0.5), p99: nearestRank(sorted, 0.99) };
  }
}

function nearestRank(sorted: Float32Array, q: number): number {
  return Math.round(sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] * 10) / 10;
}

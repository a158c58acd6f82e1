/**
 * Adds up the evidence of several sources for one token: logistic mixing as in context-mixing compressors (M. Mahoney, "Adaptive Weighing of
 * Context Models for Lossless Data Compression", 2005). A mixer holds a set of weights per situation; several mixers look at the same inputs in
 * situations of different kinds and their sums are added: the log-odds of a candidate are the sum over mixers of (bias + sum w_i * stretch(p_i)). What they
 * are odds against is the caller's: a candidate's complement, or all its rivals (prior.ts). Every outcome moves the weights along the gradient of the coding cost, which is
 * the same for both.
 */

export interface MixerOptions {
  /** Step of the gradient descent. @default 0.01 */
  rate?: number;
}

export class Mixer {
  readonly inputs: number;
  /** Per set: the weights of the inputs, and the bias. */
  readonly weights: Float32Array;
  private readonly rate: number;

  /**
   * @param inputs number of sources
   * @param sets number of situations that have weights of their own
   * @param initial weight per source at the start
   */
  constructor(inputs: number, sets: number, initial: readonly number[], options: MixerOptions = {}) {
    this.inputs = inputs;
    this.rate = options.rate ?? 0.01;
    this.weights = new Float32Array(sets * (inputs + 1));
    for (let set = 0; set < sets; set++) {
      for (let i = 0; i < inputs; i++) this.weights[set * (inputs + 1) + i] = initial[i];
    }
  }

  /**
   * A set's weighted sum of the inputs.
   *
   * @param stretched ln(p/(1-p)) per source from index `offset` on, 0 for a source that knows nothing
   */
  dot(set: number, stretched: Float32Array, offset: number): number {
    const { weights, inputs } = this;
    const base = set * (inputs + 1);
    let sum = weights[base + inputs];
    for (let i = 0; i < inputs; i++) sum += weights[base + i] * stretched[offset + i];
    return sum;
  }

  /** Learns that the outcome (0 … 1) followed where all mixers together had given `mixed`. */
  learn(set: number, stretched: Float32Array, offset: number, mixed: number, outcome: number): void {
    const { weights, inputs } = this;
    const base = set * (inputs + 1);
    const step = this.rate * (outcome - mixed);
    for (let i = 0; i < inputs; i++) weights[base + i] += step * stretched[offset + i];
    weights[base + inputs] += step;
  }
}

const STEPS = 4096;
const STRETCHED = Float32Array.from({ length: STEPS + 1 }, (_, i) => {
  const p = Math.min(Math.max((i + 0.5) / STEPS, 0.0005), 0.9995);
  return Math.log(p / (1 - p));
});

/**
 * ln(p/(1-p)), with p kept away from 0 and 1: from a table of 4,096 steps, since a logarithm per claim would be a good part of a draft's time.
 *
 * @param p 0 … 1
 */
export function stretch(p: number): number {
  return STRETCHED[(p * STEPS) | 0];
}

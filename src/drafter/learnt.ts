/** What a scope's requests of one kind (greedy, sampled) taught about the sources: how far to trust which claim, and how to mix them. */
import { Calibration, SOURCES } from "./calibration.ts";
import { Mixer } from "./mixer.ts";

/**
 * Situations by length: row of the corpora (no corpus, none, or 3 stages) × tri-gram row (none, or 3 stages of use) × longest match in the
 * slot (none, or 6 buckets) × in the history.
 */
export const LENGTH_SETS = 5 * 4 * 7 * 7;
/** Situations by place: depth (0 … 3) × how well the last drafts fared (4 levels). */
export const PLACE_SETS = 4 * 4;
/** Situations by agreement: which of the sources that have a list of their own name the token, a bit each. */
export const NAMED_SETS = 2 ** 7;

/** Weights at the start, by source: half each for the situations by length and by place. */
const FIRST_WEIGHTS = [0.15, 0.1, 0.175, 0.05, 0.15, 0.05, 0.125, 0.05, 0.05];

export class Learnt {
  readonly calibration = new Calibration();
  readonly byLength = new Mixer(SOURCES, LENGTH_SETS, FIRST_WEIGHTS, { rate: 0.01 });
  readonly byPlace = new Mixer(SOURCES, PLACE_SETS, FIRST_WEIGHTS, { rate: 0.005 });
  readonly byNames = new Mixer(SOURCES, NAMED_SETS, new Array<number>(SOURCES).fill(0), { rate: 0.01 });

  /** All that it knows, as views, in a fixed order: for snapshots. */
  get arrays(): readonly Float32Array[] {
    const { calibration, byLength, byPlace, byNames } = this;
    return [calibration.trials, calibration.hits, byLength.weights, byPlace.weights, byNames.weights];
  }
}

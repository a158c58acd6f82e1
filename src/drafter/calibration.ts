/**
 * Turns what a source claims into the rate at which such claims came true. A cell counts claims by source, length bucket (match length, or how
 * often the row was updated), rank, claimed probability and depth; sources count on different scales, the rates are
 * comparable.
 */

import { DRAFT_SOURCES } from "./options.ts";

/** In the order of DRAFT_SOURCES. */
export const SOURCE_TRIGRAM = 0;
export const SOURCE_BIGRAM = 1;
export const SOURCE_SUFFIX = 2;
export const SOURCE_NEXT = 3;
/** Rows of the corpora: pairs, and single tokens. */
export const SOURCE_FLOOR_TRIGRAM = 4;
export const SOURCE_FLOOR_BIGRAM = 5;
export const SOURCE_HISTORY = 6;
export const SOURCE_ALTERNATE = 7;
/** Not a source of candidates: how long ago a candidate stood in the slot's text. */
export const SOURCE_RECENCY = 8;
/** By number, for reports. */
export const SOURCE_NAMES = DRAFT_SOURCES;
/** Number of sources. */
export const SOURCES = SOURCE_NAMES.length;

const LENGTHS = 6;
const RANKS = 6;
const PROBS = 8;
const DEPTHS = 3;
/** Rank of a token that a source which knows the context does not name. */
export const RANK_ABSENT = -1;
const CELLS = SOURCES * LENGTHS * RANKS * PROBS * DEPTHS;

export interface CalibrationOptions {
  /** Trials that the claim itself weighs. @default 15 */
  priorWeight?: number;
  /** Trials after which a cell's past is halved, so that it follows the traffic. @default 512 */
  memory?: number;
}

export class Calibration {
  private readonly priorWeight: number;
  private readonly memory: number;
  /** Both by cell. */
  readonly trials = new Float32Array(CELLS);
  readonly hits = new Float32Array(CELLS);

  constructor(options: CalibrationOptions = {}) {
    this.priorWeight = options.priorWeight ?? 15;
    this.memory = options.memory ?? 512;
  }

  /** Probability that a claim of this cell comes true; `claim` counts where trials are few. */
  rate(cell: number, claim: number): number {
    return (this.hits[cell] + this.priorWeight * claim) / (this.trials[cell] + this.priorWeight);
  }

  /** Counts one outcome, 0 … 1. */
  count(cell: number, outcome: number): void {
    this.trials[cell]++;
    this.hits[cell] += outcome;
    if (this.trials[cell] > this.memory) {
      this.trials[cell] *= 0.5;
      this.hits[cell] *= 0.5;
    }
  }

  /** Trials counted in a cell (halved as they age). */
  trialsOf(cell: number): number {
    return this.trials[cell];
  }
}

/**
 * The cell of a claim.
 *
 * @param length bucket 0 … 5
 * @param rank 0 is the source's first; RANK_ABSENT for a token that it does not name
 * @param depth of the parent: 0 is the root
 */
export function cellOf(source: number, length: number, rank: number, claim: number, depth: number): number {
  const r = rank === RANK_ABSENT ? RANKS - 1 : Math.min(rank, RANKS - 2);
  const d = Math.min(depth, DEPTHS - 1);
  return (((source * LENGTHS + length) * RANKS + r) * PROBS + probBucket(claim)) * DEPTHS + d;
}

/** The rank that went into a cell (the largest stands for all larger ones), or RANK_ABSENT. */
export function rankOf(cell: number): number {
  const rank = Math.floor(cell / (PROBS * DEPTHS)) % RANKS;
  return rank === RANKS - 1 ? RANK_ABSENT : rank;
}

function probBucket(p: number): number {
  if (p < 0.12) return p < 0.03 ? (p < 0.008 ? 0 : 1) : 2;
  if (p < 0.6) return p < 0.3 ? 3 : 4;
  return p < 0.85 ? 5 : p < 0.97 ? 6 : 7;
}

/** Bucket of a match length in tokens (1 …). */
export function lengthBucket(length: number): number {
  if (length < 3) return length < 2 ? 0 : 1;
  return length < 5 ? 2 : length < 8 ? 3 : length < 13 ? 4 : 5;
}

/** Bucket of how many tokens ago a token stood last: 0 for never, else 1 … 5. */
export function agoBucket(ago: number): number {
  if (ago < 32) return ago < 0 ? 0 : ago < 8 ? 1 : 2;
  return ago < 96 ? 3 : ago < 256 ? 4 : 5;
}

/** Bucket of a row's number of updates, or of a pair's occurrences in the corpora (1 …). */
export function seenBucket(seen: number): number {
  if (seen < 4) return seen < 2 ? 0 : seen - 1;
  return seen < 8 ? 3 : seen < 24 ? 4 : 5;
}

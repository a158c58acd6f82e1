/**
 * The mixed prior: what the next token may be after a cell's path, by all sources at once. Each source's claim is calibrated
 * (calibration.ts) and the calibrated rates of one token are added up (mixer.ts), so that a token counts once however many sources name it. Both learn from
 * the outcome at every verified cell.
 */
import { type CorpusFloor, NO_TOKEN } from "../corpus/floor.ts";
import {
  Calibration,
  type CalibrationOptions,
  cellOf,
  lengthBucket,
  RANK_ABSENT,
  SOURCE_BIGRAM,
  SOURCE_FLOOR_BIGRAM,
  SOURCE_FLOOR_TRIGRAM,
  SOURCE_NEXT,
  SOURCE_SUFFIX,
  SOURCE_TRIGRAM,
  SOURCES,
  seenBucket,
} from "./calibration.ts";
import type { DraftTree } from "./draft-tree.ts";
import { Mixer, type MixerOptions, stretch } from "./mixer.ts";
import type { Expander } from "./search.ts";
import type { SuffixIndex, SuffixMatches } from "./suffix-index.ts";
import { NONE, type TrigramMatrix } from "./trigram-matrix.ts";

/** Most children of one cell. */
export const MAX_CHILDREN = 20;
/** Claim of a source for a token that it does not name, before anything was counted. */
const ABSENT_CLAIM = 0.01;
const BIGRAM_CANDIDATES = 6;
const SUFFIX_CANDIDATES = 8;
const NEXT_DEPTH = 2;
/**
 * Situations of the mixer: tri-gram row (none, or 3 stages of use), times longest match (none, or 6 buckets), times row of the corpora (no corpus,
 * none, or 3 stages).
 */
const STAGES = 4;
const MATCHES = 7;
const FLOORS = 5;
const INITIAL_WEIGHTS = [0.6, 0.2, 0.5, 0.1, 0.4, 0.1];

/** Why each child of a tree's cells got its prior; kept until the outcome is known. Parallel to the tree's cells. */
export class Evidence {
  /** Calibration cell by source, -1 where the source had no say. Length cells * SOURCES. */
  readonly cell: Int32Array;
  /** Stretched calibrated rate by source, 0 where it had no say. Length cells * SOURCES. */
  readonly stretched: Float32Array;
  /** Mixed probability before the children were scaled to sum to at most 1. */
  readonly mixed: Float32Array;
  /** Mixer's set of an expanded cell. */
  readonly set: Uint8Array;

  /** @param cells capacity of the tree */
  constructor(cells: number) {
    this.cell = new Int32Array(cells * SOURCES);
    this.stretched = new Float32Array(cells * SOURCES);
    this.mixed = new Float32Array(cells);
    this.set = new Uint8Array(cells);
  }
}

/** What the prior reads of one slot. */
export interface PriorContext {
  matrix: TrigramMatrix;
  /** What the slot holds; its last token is the root. */
  suffix: SuffixIndex;
  evidence: Evidence;
  /** 1/temperature of a sampled request, 1 for a greedy one. */
  sharpness: number;
  greedy: boolean;
  /** The model's likeliest tokens at the position that the root was taken from. */
  lastIds: Int32Array;
  lastCount: number;
}

export interface PriorOptions {
  /** Successors read from a matrix row. */
  width: number;
  nVocab: number;
  calibration?: CalibrationOptions;
  mixer?: MixerOptions;
}

/** Calibration and mixer of one kind of request: greedy ones and sampled ones accept at different rates. */
interface Learnt {
  calibration: Calibration;
  mixer: Mixer;
}

export class Prior implements Expander {
  private readonly nVocab: number;
  private readonly greedy: Learnt;
  private readonly sampled: Learnt;
  private at: PriorContext | undefined;
  private floor: CorpusFloor | undefined;

  // Scratch of one expansion.
  private readonly context: Int32Array;
  private rowIds: Int32Array;
  private rowProbs: Float32Array;
  private readonly matches: SuffixMatches;
  private count = 0;
  private readonly token = new Int32Array(MAX_CHILDREN);
  private readonly cell = new Int32Array(MAX_CHILDREN * SOURCES);
  private readonly claim = new Float32Array(MAX_CHILDREN * SOURCES);
  private readonly stretched = new Float32Array(MAX_CHILDREN * SOURCES);
  private readonly mixed = new Float32Array(MAX_CHILDREN);
  private readonly rank = new Int32Array(MAX_CHILDREN);

  constructor(options: PriorOptions) {
    const learnt = (): Learnt => ({
      calibration: new Calibration(options.calibration),
      mixer: new Mixer(SOURCES, STAGES * MATCHES * FLOORS, INITIAL_WEIGHTS, options.mixer),
    });
    this.nVocab = options.nVocab;
    this.greedy = learnt();
    this.sampled = learnt();
    this.context = new Int32Array(16);
    this.rowIds = new Int32Array(options.width);
    this.rowProbs = new Float32Array(options.width);
    this.matches = {
      count: 0,
      token: new Int32Array(SUFFIX_CANDIDATES),
      length: new Int32Array(SUFFIX_CANDIDATES),
      share: new Float32Array(SUFFIX_CANDIDATES),
    };
  }

  /** What the corpora know; undefined: there are none. */
  useFloor(floor: CorpusFloor | undefined): void {
    this.floor = floor;
    if (floor === undefined || floor.width <= this.rowIds.length) return;
    this.rowIds = new Int32Array(floor.width);
    this.rowProbs = new Float32Array(floor.width);
  }

  /** The slot that the next calls are about. */
  bind(context: PriorContext): void {
    this.at = context;
  }

  expand(tree: DraftTree, cell: number): void {
    const at = this.at;
    if (at === undefined || tree.cells + MAX_CHILDREN > tree.capacity) return;
    const { calibration, mixer } = at.greedy ? this.greedy : this.sampled;
    const { context, matches, floor } = this;
    const depth = tree.depth[cell];
    const known = this.fillContext(tree, cell, at.suffix);
    this.count = 0;

    const longest = at.suffix.match(context, known, matches) > 0 ? longestOf(matches) : 0;
    for (let i = 0; i < matches.count; i++) {
      const length = lengthBucket(matches.length[i]);
      this.propose(SOURCE_SUFFIX, matches.token[i], length, i, matches.share[i], depth);
    }

    const tri = known >= 2 ? at.matrix.find(context[1], context[0]) : -1;
    let stage = 0;
    if (tri >= 0) {
      const seen = at.matrix.seen(tri);
      stage = stageOf(seen);
      this.proposeRow(at, at.matrix, tri, SOURCE_TRIGRAM, seenBucket(seen), MAX_CHILDREN, depth);
    }
    let bi = at.matrix.find(NONE, context[0]);
    if (bi < 0) bi = at.matrix.find(NONE, NONE);
    if (bi >= 0) {
      const most = tri >= 0 ? BIGRAM_CANDIDATES : MAX_CHILDREN;
      this.proposeRow(at, at.matrix, bi, SOURCE_BIGRAM, seenBucket(at.matrix.seen(bi)), most, depth);
    }
    let floorTri = -1;
    let floorBi = -1;
    let floorStage = 0;
    if (floor !== undefined) {
      floorStage = 1;
      if (known >= 2) floorTri = floor.find(context[1], context[0]);
      if (floorTri >= 0) {
        const seen = floor.seen(floorTri);
        floorStage = 1 + stageOf(seen);
        this.proposeRow(at, floor, floorTri, SOURCE_FLOOR_TRIGRAM, seenBucket(seen), MAX_CHILDREN, depth);
      }
      floorBi = floor.find(NO_TOKEN, context[0]);
      if (floorBi >= 0) {
        const most = floorTri >= 0 || tri >= 0 ? BIGRAM_CANDIDATES : MAX_CHILDREN;
        const seen = seenBucket(floor.seen(floorBi));
        this.proposeRow(at, floor, floorBi, SOURCE_FLOOR_BIGRAM, seen, most, depth);
      }
    }
    if (depth < NEXT_DEPTH) {
      for (let i = 0; i < at.lastCount; i++) this.support(SOURCE_NEXT, at.lastIds[i], i, depth);
    }
    if (this.count === 0) return;

    const match = longest > 0 ? 1 + lengthBucket(longest) : 0;
    const set = (floorStage * STAGES + stage) * MATCHES + match;
    at.evidence.set[cell] = set;
    const triAbsent = tri >= 0 ? cellOf(SOURCE_TRIGRAM, stage, RANK_ABSENT, 0, depth) : -1;
    const biAbsent = bi >= 0 ? cellOf(SOURCE_BIGRAM, 0, RANK_ABSENT, 0, depth) : -1;
    const suffixAbsent =
      longest > 0 ? cellOf(SOURCE_SUFFIX, lengthBucket(longest), RANK_ABSENT, 0, depth) : -1;
    const floorTriAbsent =
      floorTri >= 0 ? cellOf(SOURCE_FLOOR_TRIGRAM, floorStage, RANK_ABSENT, 0, depth) : -1;
    const floorBiAbsent = floorBi >= 0 ? cellOf(SOURCE_FLOOR_BIGRAM, 0, RANK_ABSENT, 0, depth) : -1;
    let sum = 0;
    for (let i = 0; i < this.count; i++) {
      const base = i * SOURCES;
      if (this.cell[base + SOURCE_TRIGRAM] < 0) this.absent(base + SOURCE_TRIGRAM, triAbsent);
      if (this.cell[base + SOURCE_BIGRAM] < 0) this.absent(base + SOURCE_BIGRAM, biAbsent);
      if (this.cell[base + SOURCE_SUFFIX] < 0) this.absent(base + SOURCE_SUFFIX, suffixAbsent);
      if (this.cell[base + SOURCE_FLOOR_TRIGRAM] < 0)
        this.absent(base + SOURCE_FLOOR_TRIGRAM, floorTriAbsent);
      if (this.cell[base + SOURCE_FLOOR_BIGRAM] < 0) this.absent(base + SOURCE_FLOOR_BIGRAM, floorBiAbsent);
      for (let source = 0; source < SOURCES; source++) {
        const j = base + source;
        this.stretched[j] = this.cell[j] < 0 ? 0 : stretch(calibration.rate(this.cell[j], this.claim[j]));
      }
      const p = mixer.mix(set, this.stretched, base);
      this.mixed[i] = p;
      sum += p;
    }
    this.addSorted(tree, cell, at.evidence, sum > 1 ? 1 / sum : 1);
  }

  /**
   * Learns that `token` followed an expanded cell (for a rejected cell of a greedy request: that the model would have put it there).
   */
  learn(tree: DraftTree, cell: number, token: number): void {
    const at = this.at;
    if (at === undefined || tree.children[cell] === 0) return;
    const { calibration, mixer } = at.greedy ? this.greedy : this.sampled;
    const { evidence } = at;
    const set = evidence.set[cell];
    const first = tree.first[cell];
    const end = first + tree.children[cell];
    for (let child = first; child < end; child++) {
      const outcome = tree.token[child] === token ? 1 : 0;
      const base = child * SOURCES;
      mixer.learn(set, evidence.stretched, base, evidence.mixed[child], outcome);
      for (let source = 0; source < SOURCES; source++) {
        const counted = evidence.cell[base + source];
        if (counted >= 0) calibration.count(counted, outcome);
      }
    }
  }

  /** The last tokens before and at a cell, newest first; returns how many. */
  private fillContext(tree: DraftTree, cell: number, suffix: SuffixIndex): number {
    const { context } = this;
    let n = 0;
    let at = cell;
    for (; at > 0 && n < context.length; at = tree.parent[at]) context[n++] = tree.token[at];
    for (let back = suffix.length - 1; back >= 0 && n < context.length; back--)
      context[n++] = suffix.at(back);
    return n;
  }

  private proposeRow(
    at: PriorContext,
    rows: RowReader,
    row: number,
    source: number,
    length: number,
    most: number,
    depth: number,
  ): void {
    const { rowIds, rowProbs } = this;
    const size = rows.read(row, rowIds, rowProbs);
    if (at.sharpness !== 1) reshape(rowProbs, size, at.sharpness);
    const n = Math.min(size, most);
    for (let i = 0; i < n; i++) this.propose(source, rowIds[i], length, i, rowProbs[i], depth);
  }

  /** Notes a source's claim for a token; makes the token a candidate if there is room. */
  private propose(
    source: number,
    token: number,
    length: number,
    rank: number,
    claim: number,
    depth: number,
  ): void {
    if (token < 0 || token >= this.nVocab) return;
    let i = 0;
    while (i < this.count && this.token[i] !== token) i++;
    if (i === this.count) {
      if (i === MAX_CHILDREN) return;
      this.count++;
      this.token[i] = token;
      this.cell.fill(-1, i * SOURCES, (i + 1) * SOURCES);
    }
    this.cell[i * SOURCES + source] = cellOf(source, length, rank, claim, depth);
    this.claim[i * SOURCES + source] = claim;
  }

  /** Notes a claim for a token only if another source made it a candidate. */
  private support(source: number, token: number, rank: number, depth: number): void {
    for (let i = 0; i < this.count; i++) {
      if (this.token[i] !== token) continue;
      this.cell[i * SOURCES + source] = cellOf(source, 0, rank, 0, depth);
      this.claim[i * SOURCES + source] = 0.2;
      return;
    }
  }

  private absent(at: number, cell: number): void {
    this.cell[at] = cell;
    this.claim[at] = ABSENT_CLAIM;
  }

  private addSorted(tree: DraftTree, cell: number, evidence: Evidence, scale: number): void {
    const { mixed, rank, count } = this;
    for (let i = 0; i < count; i++) {
      let j = i - 1;
      while (j >= 0 && mixed[rank[j]] < mixed[i]) {
        rank[j + 1] = rank[j];
        j--;
      }
      rank[j + 1] = i;
    }
    for (let r = 0; r < count; r++) {
      const i = rank[r];
      const child = tree.cells;
      tree.addChild(cell, this.token[i], mixed[i] * scale);
      evidence.mixed[child] = mixed[i];
      for (let source = 0; source < SOURCES; source++) {
        evidence.cell[child * SOURCES + source] = this.cell[i * SOURCES + source];
        evidence.stretched[child * SOURCES + source] = this.stretched[i * SOURCES + source];
      }
    }
  }
}

/** Where rows are read from: the matrix, or its floor. */
interface RowReader {
  read(row: number, ids: Int32Array, probs: Float32Array): number;
}

/** Stage of use of a row by how often it was seen: 1 … 3. */
function stageOf(seen: number): number {
  return seen < 2 ? 1 : seen < 5 ? 2 : 3;
}

function longestOf(matches: SuffixMatches): number {
  let longest = 0;
  for (let i = 0; i < matches.count; i++) if (matches.length[i] > longest) longest = matches.length[i];
  return longest;
}

/** p^(1/T), renormalised over the row. */
function reshape(probs: Float32Array, n: number, sharpness: number): void {
  let sum = 0;
  for (let i = 0; i < n; i++) {
    probs[i] = probs[i] ** sharpness;
    sum += probs[i];
  }
  if (sum > 0) for (let i = 0; i < n; i++) probs[i] /= sum;
}

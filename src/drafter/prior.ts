/**
 * The mixed prior: what the next token may be after a cell's path, by all sources at once. Each source's claim is calibrated
 * (calibration.ts) and the calibrated rates of one token are added up (mixer.ts), so that a token counts once however many sources name it. Both learn from
 * the outcome at every verified cell.
 */
import { type CorpusFloor, NO_TOKEN } from "../corpus/floor.ts";
import {
  agoBucket,
  cellOf,
  lengthBucket,
  RANK_ABSENT,
  SOURCE_ALTERNATE,
  SOURCE_BIGRAM,
  SOURCE_FLOOR_BIGRAM,
  SOURCE_FLOOR_TRIGRAM,
  SOURCE_HISTORY,
  SOURCE_NEXT,
  SOURCE_RECENCY,
  SOURCE_SUFFIX,
  SOURCE_TRIGRAM,
  SOURCES,
  seenBucket,
} from "./calibration.ts";
import type { DraftTree } from "./draft-tree.ts";
import type { History } from "./history.ts";
import type { Learnt } from "./learnt.ts";
import { stretch } from "./mixer.ts";
import type { DraftSource } from "./options.ts";
import { DRAFT_SOURCES } from "./options.ts";
import type { Expander } from "./search.ts";
import type { SuffixIndex } from "./suffix-index.ts";
import type { SuffixMatches, TokenIndex } from "./token-index.ts";
import { NONE, sortDescending, type TrigramMatrix } from "./trigram-matrix.ts";

/** Most children of one cell. */
export const MAX_CHILDREN = 20;
/** Claim of a source for a token that it does not name, before anything was counted. */
const ABSENT_CLAIM = 0.01;
/** Share of the best claim for a token that is its claim by recency, before anything was counted. */
const RECENCY_CLAIM = 0.5;
const BIGRAM_CANDIDATES = 6;
const SUFFIX_CANDIDATES = 8;
const NEXT_DEPTH = 2;
/** Keeps the odds finite. */
const MOST_LOG_ODDS = 20;
/** Tokens that could have stood in the root's place that are looked at, successors of each, different ones counted, and proposed. */
const ALTERNATES = 8;
const ALTERNATE_TOP = 8;
const ALTERNATE_POOL = 32;
const ALTERNATE_CANDIDATES = 8;
/** Alternates below that probability tell nothing. */
const LEAST_ALTERNATE = 0.005;
/** By source: its bit in the situation by agreement. Next-next only supports, so it names nothing. */
const NAMED_BIT = Int32Array.of(1, 2, 4, 0, 8, 16, 32, 64, 0);

/** Why each child of a tree's cells got its prior; kept until the outcome is known. Parallel to the tree's cells. */
export class Evidence {
  /** Calibration cell by source, -1 where the source had no say. Length cells * SOURCES. */
  readonly cell: Int32Array;
  /** Stretched calibrated rate by source, 0 where it had no say. Length cells * SOURCES. */
  readonly stretched: Float32Array;
  /** Situations of an expanded cell (learnt.ts). */
  readonly byLength: Uint16Array;
  readonly byPlace: Uint8Array;
  /** Which sources name a cell. */
  readonly byNames: Uint8Array;

  /** @param cells capacity of the tree */
  constructor(cells: number) {
    this.cell = new Int32Array(cells * SOURCES);
    this.stretched = new Float32Array(cells * SOURCES);
    this.byLength = new Uint16Array(cells);
    this.byPlace = new Uint8Array(cells);
    this.byNames = new Uint8Array(cells);
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
  /** The model's likeliest tokens at the position that the root was taken from, and their probabilities. */
  lastIds: Int32Array;
  lastProbs: Float32Array;
  lastCount: number;
  /** Earlier outputs of the scope. */
  history: History;
  /** What to make of the sources' claims, for this kind of request. */
  learnt: Learnt;
  /** How well the last drafts fared: 0 … 3. */
  luck: number;
}

export interface PriorOptions {
  /** Successors read from a matrix row. */
  width: number;
  nVocab: number;
  /** Sources to do without. @default [] */
  without?: readonly DraftSource[];
}

export class Prior implements Expander {
  private readonly nVocab: number;
  /** By source: 1 where it has its say. */
  private readonly uses: Uint8Array;
  private at: PriorContext | undefined;
  private floor: CorpusFloor | undefined;

  // Scratch of one expansion.
  private readonly context: Int32Array;
  private rowIds: Int32Array;
  private rowProbs: Float32Array;
  private readonly matches: SuffixMatches;
  private readonly poolIds = new Int32Array(ALTERNATE_POOL);
  private readonly poolProbs = new Float32Array(ALTERNATE_POOL);
  private count = 0;
  private readonly token = new Int32Array(MAX_CHILDREN);
  private readonly cell = new Int32Array(MAX_CHILDREN * SOURCES);
  private readonly claim = new Float32Array(MAX_CHILDREN * SOURCES);
  private readonly stretched = new Float32Array(MAX_CHILDREN * SOURCES);
  private readonly mixed = new Float32Array(MAX_CHILDREN);
  private readonly rank = new Int32Array(MAX_CHILDREN);
  private readonly names = new Uint8Array(MAX_CHILDREN);
  /** By source: the cell of a token that it does not name, -1 where it knows nothing of the context. */
  private readonly absentCell = new Int32Array(SOURCES).fill(-1);

  constructor(options: PriorOptions) {
    this.nVocab = options.nVocab;
    const without = options.without ?? [];
    this.uses = Uint8Array.from(DRAFT_SOURCES, (source) => (without.includes(source) ? 0 : 1));
    this.context = new Int32Array(16);
    this.rowIds = new Int32Array(options.width);
    this.rowProbs = new Float32Array(options.width);
    this.matches = {
      count: 0,
      token: new Int32Array(SUFFIX_CANDIDATES),
      length: new Int32Array(SUFFIX_CANDIDATES),
      share: new Float32Array(SUFFIX_CANDIDATES),
      longest: 0,
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
    const { context, uses, floor } = this;
    const depth = tree.depth[cell];
    const known = this.fillContext(tree, cell, at.suffix);
    this.count = 0;

    const longest = this.proposeMatches(at.suffix, SOURCE_SUFFIX, known, depth);
    const longestBefore = this.proposeMatches(at.history, SOURCE_HISTORY, known, depth);
    const tri = known >= 2 && uses[SOURCE_TRIGRAM] === 1 ? at.matrix.find(context[1], context[0]) : -1;
    const triStage = this.proposeRow(at.matrix, tri, SOURCE_TRIGRAM, MAX_CHILDREN, depth);
    let bi = -1;
    if (uses[SOURCE_BIGRAM] === 1) {
      bi = at.matrix.find(NONE, context[0]);
      if (bi < 0) bi = at.matrix.find(NONE, NONE);
    }
    this.proposeRow(at.matrix, bi, SOURCE_BIGRAM, tri >= 0 ? BIGRAM_CANDIDATES : MAX_CHILDREN, depth);
    let floorTri = -1;
    let floorBi = -1;
    let floorStage = 0;
    if (floor !== undefined) {
      if (known >= 2 && uses[SOURCE_FLOOR_TRIGRAM] === 1) floorTri = floor.find(context[1], context[0]);
      floorStage = 1 + this.proposeRow(floor, floorTri, SOURCE_FLOOR_TRIGRAM, MAX_CHILDREN, depth);
      if (uses[SOURCE_FLOOR_BIGRAM] === 1) floorBi = floor.find(NO_TOKEN, context[0]);
      const most = floorTri >= 0 || tri >= 0 ? BIGRAM_CANDIDATES : MAX_CHILDREN;
      this.proposeRow(floor, floorBi, SOURCE_FLOOR_BIGRAM, most, depth);
    }
    if (depth === 0 && uses[SOURCE_ALTERNATE] === 1) this.proposeAlternates(at, known);
    if (depth < NEXT_DEPTH && uses[SOURCE_NEXT] === 1) {
      for (let i = 0; i < at.lastCount; i++) this.support(SOURCE_NEXT, at.lastIds[i], i, depth);
    }
    if (this.count === 0) return;
    if (uses[SOURCE_RECENCY] === 1) this.noteRecency(at.suffix, depth);

    const { absentCell } = this;
    absentCell[SOURCE_TRIGRAM] = tri < 0 ? -1 : cellOf(SOURCE_TRIGRAM, triStage, RANK_ABSENT, 0, depth);
    absentCell[SOURCE_BIGRAM] = bi < 0 ? -1 : cellOf(SOURCE_BIGRAM, 0, RANK_ABSENT, 0, depth);
    absentCell[SOURCE_FLOOR_TRIGRAM] =
      floorTri < 0 ? -1 : cellOf(SOURCE_FLOOR_TRIGRAM, floorStage, RANK_ABSENT, 0, depth);
    absentCell[SOURCE_FLOOR_BIGRAM] =
      floorBi < 0 ? -1 : cellOf(SOURCE_FLOOR_BIGRAM, 0, RANK_ABSENT, 0, depth);
    absentCell[SOURCE_SUFFIX] = absentMatch(SOURCE_SUFFIX, longest, depth);
    absentCell[SOURCE_HISTORY] = absentMatch(SOURCE_HISTORY, longestBefore, depth);
    const byLength =
      ((floorStage * 4 + triStage) * 7 + lengthLevel(longest)) * 7 + lengthLevel(longestBefore);
    const byPlace = Math.min(depth, 3) * 4 + at.luck;
    at.evidence.byLength[cell] = byLength;
    at.evidence.byPlace[cell] = byPlace;
    this.mix(at.learnt, byLength, byPlace);
    this.addSorted(tree, cell, at.evidence);
  }

  /**
   * Calibrates and mixes the claims for each candidate. The candidates exclude each other: each has odds exp(mixed sum), and "none of them" has 1.
   */
  private mix(learnt: Learnt, byLength: number, byPlace: number): void {
    const { calibration } = learnt;
    const { absentCell, stretched, mixed, count } = this;
    let all = 1;
    for (let i = 0; i < count; i++) {
      const base = i * SOURCES;
      let names = 0;
      for (let source = 0; source < SOURCES; source++) {
        const j = base + source;
        if (this.cell[j] >= 0) {
          names |= NAMED_BIT[source];
        } else {
          this.cell[j] = absentCell[source];
          this.claim[j] = ABSENT_CLAIM;
        }
        stretched[j] = this.cell[j] < 0 ? 0 : stretch(calibration.rate(this.cell[j], this.claim[j]));
      }
      const sum =
        learnt.byLength.dot(byLength, stretched, base) +
        learnt.byPlace.dot(byPlace, stretched, base) +
        learnt.byNames.dot(names, stretched, base);
      const odds = Math.exp(Math.min(sum, MOST_LOG_ODDS));
      this.names[i] = names;
      mixed[i] = odds;
      all += odds;
    }
    for (let i = 0; i < count; i++) mixed[i] /= all;
  }

  /**
   * Learns that `token` followed an expanded cell (for a rejected cell of a greedy request: that the model would have put it there).
   */
  learn(tree: DraftTree, cell: number, token: number): void {
    const at = this.at;
    if (at === undefined || tree.children[cell] === 0) return;
    const { calibration, byLength, byPlace, byNames } = at.learnt;
    const { evidence } = at;
    const { stretched } = evidence;
    const first = tree.first[cell];
    const end = first + tree.children[cell];
    for (let child = first; child < end; child++) {
      const outcome = tree.token[child] === token ? 1 : 0;
      const base = child * SOURCES;
      const mixed = tree.prior[child];
      byLength.learn(evidence.byLength[cell], stretched, base, mixed, outcome);
      byPlace.learn(evidence.byPlace[cell], stretched, base, mixed, outcome);
      byNames.learn(evidence.byNames[child], stretched, base, mixed, outcome);
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

  /** Proposes what followed where the context occurred before; returns the length of the longest match. */
  private proposeMatches(index: TokenIndex, source: number, known: number, depth: number): number {
    const { matches } = this;
    if (this.uses[source] === 0 || index.match(this.context, known, matches) === 0) return 0;
    for (let i = 0; i < matches.count; i++) {
      const length = lengthBucket(matches.length[i]);
      this.propose(source, matches.token[i], length, i, matches.share, depth);
    }
    return matches.longest;
  }

  /** Proposes the successors of a row, if there is one; returns its stage of use: 0 for none, 1 … 3. */
  private proposeRow(rows: Rows, row: number, source: number, most: number, depth: number): number {
    if (row < 0) return 0;
    const { rowIds, rowProbs } = this;
    const seen = rows.seen(row);
    const length = seenBucket(seen);
    const size = rows.read(row, rowIds, rowProbs);
    const sharpness = this.at?.sharpness ?? 1;
    if (sharpness !== 1) reshape(rowProbs, size, sharpness);
    const n = Math.min(size, most);
    for (let i = 0; i < n; i++) this.propose(source, rowIds[i], length, i, rowProbs, depth);
    return seen < 2 ? 1 : seen < 5 ? 2 : 3;
  }

  /**
   * Proposes what followed the tokens that the model found likely in the root's place, each weighed by how likely it was there: text goes
   * on similarly after similar words. What it said at rejected siblings of the root is in their rows by now.
   */
  private proposeAlternates(at: PriorContext, known: number): void {
    const { context, rowIds, rowProbs, poolIds, poolProbs } = this;
    let total = 0;
    let count = 0;
    for (let i = 0; i < at.lastCount && i < ALTERNATES; i++) {
      const alternate = at.lastIds[i];
      const weight = at.lastProbs[i];
      if (alternate < 0 || alternate === context[0] || !(weight >= LEAST_ALTERNATE)) continue;
      let row = known >= 2 ? at.matrix.find(context[1], alternate) : -1;
      if (row < 0) row = at.matrix.find(NONE, alternate);
      if (row < 0) continue;
      const size = Math.min(at.matrix.read(row, rowIds, rowProbs), ALTERNATE_TOP);
      total += weight;
      for (let j = 0; j < size; j++) {
        let to = 0;
        while (to < count && poolIds[to] !== rowIds[j]) to++;
        if (to < count) {
          poolProbs[to] += weight * rowProbs[j];
        } else if (count < ALTERNATE_POOL) {
          poolIds[count] = rowIds[j];
          poolProbs[count++] = weight * rowProbs[j];
        }
      }
    }
    if (total === 0) return;
    sortDescending(poolIds, poolProbs, count);
    const most = Math.min(count, ALTERNATE_CANDIDATES);
    for (let i = 0; i < most; i++) {
      poolProbs[i] /= total;
      this.propose(SOURCE_ALTERNATE, poolIds[i], 0, i, poolProbs, 0);
    }
  }

  /**
   * Notes a source's claim for a token; makes the token a candidate if there is room.
   *
   * @param claims the source's claims by rank: a number with a fraction would be allocated for each call
   */
  private propose(
    source: number,
    token: number,
    length: number,
    rank: number,
    claims: Float32Array,
    depth: number,
  ): void {
    const claim = claims[rank];
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

  /** Notes how long ago each candidate stood in the text, beside the best of the claims for it. */
  private noteRecency(suffix: SuffixIndex, depth: number): void {
    const { cell, claim } = this;
    for (let i = 0; i < this.count; i++) {
      const base = i * SOURCES;
      let best = 0;
      for (let j = base; j < base + SOURCE_RECENCY; j++) if (cell[j] >= 0 && claim[j] > best) best = claim[j];
      cell[base + SOURCE_RECENCY] = cellOf(
        SOURCE_RECENCY,
        agoBucket(suffix.ago(this.token[i])),
        0,
        best,
        depth,
      );
      claim[base + SOURCE_RECENCY] = best * RECENCY_CLAIM;
    }
  }

  private addSorted(tree: DraftTree, cell: number, evidence: Evidence): void {
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
      tree.addChild(cell, this.token[i], mixed[i]);
      evidence.byNames[child] = this.names[i];
      for (let source = 0; source < SOURCES; source++) {
        evidence.cell[child * SOURCES + source] = this.cell[i * SOURCES + source];
        evidence.stretched[child * SOURCES + source] = this.stretched[i * SOURCES + source];
      }
    }
  }
}

/** Where rows are read from: the matrix, or the corpora. */
interface Rows {
  read(row: number, ids: Int32Array, probs: Float32Array): number;
  seen(row: number): number;
}

/** 0 for no match, else 1 + its bucket. */
function lengthLevel(longest: number): number {
  return longest > 0 ? 1 + lengthBucket(longest) : 0;
}

function absentMatch(source: number, longest: number, depth: number): number {
  return longest > 0 ? cellOf(source, lengthBucket(longest), RANK_ABSENT, 0, depth) : -1;
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

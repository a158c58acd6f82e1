/** Every setting of the drafter, with unit, default and bounds. */
import { AdedError } from "../errors.ts";

export const DEFAULT_MATRIX_BYTES = 256 * 2 ** 20;

/** What drafts are made from (docs/drafter.md), in the order of the calibration's cells. */
export const DRAFT_SOURCES = [
  "trigram",
  "bigram",
  "suffix",
  "next",
  "corpus_trigram",
  "corpus_bigram",
  "history",
  "alternate",
  "recency",
] as const;

export type DraftSource = (typeof DRAFT_SOURCES)[number];

export interface DrafterOptions {
  /** Hard bound on the memory of all matrices and histories together, bytes, at least 1 MiB. @default 268435456 (256 MiB) */
  matrixBytes?: number;
  /** Bytes of `matrixBytes` that are kept for the corpora until it is known how much they take, at most half. @default 0 */
  floorBytes?: number;
  /** Successors kept per matrix row, 1 … 64. @default 12 */
  matrixWidth?: number;
  /** Learning scopes held at once; past that the one used longest ago is forgotten. @default 64 */
  maxScopes?: number;
  /** All requests learn and draft in one scope, whatever scope they name. @default false */
  shareScopes?: boolean;
  /** Tokens of earlier outputs kept per scope; as many as fit into 1/16 of `matrixBytes`, at most. @default 262144 */
  historyTokens?: number;
  /** Sources to do without: for measurements. @default [] */
  without?: readonly DraftSource[];
  /** Weight of the newest distribution in a tri-gram row, 0 … 1. @default 0.35 */
  trigramRate?: number;
  /** Weight of the newest distribution in a bi-gram row, 0 … 1. @default 0.3 */
  bigramRate?: number;
  /** Weight of the newest distribution in the uni-gram row, 0 … 1. @default 0.002 */
  unigramRate?: number;
  /** How the tree is found. @default "best-first" (docs/drafter.md shows both) */
  search?: "puct" | "best-first";
  /** PUCT's c: weight of exploration. @default 0.1 */
  exploration?: number;
  /** PUCT's iterations per wanted node, at least 1. @default 1.25 */
  effort?: number;
  /** Most nodes per slot and step, 1 … 1024. @default 32 */
  maxNodes?: number;
  /** Deepest level of a tree, 1 … 64. @default 16 */
  maxDepth?: number;
  /** Draft that many nodes at every step, whether they pay or not: for measurements. @default undefined: the controller decides */
  fixedNodes?: number;
  /** What drafting adds to a step beside the larger forward pass, µs: the link's round trip and the search; until the engine tells what it is. @default 150 */
  overheadUs?: number;
  /**
   * Learn from requests without drafts, too (`x-aded: off`).
   * @default false: they leave no trace, or the two arms of an A/B would teach each other
   */
  learnFromPlain?: boolean;
  /** Seed of everything that chance decides. @default 1 */
  seed?: number;
}

export type ResolvedDrafterOptions = Required<Omit<DrafterOptions, "fixedNodes">> &
  Pick<DrafterOptions, "fixedNodes">;

/** Fills in the defaults. Throws ADED_CONFIG for a value out of bounds. */
export function resolveDrafterOptions(options: DrafterOptions = {}): ResolvedDrafterOptions {
  const matrixBytes = bounded("matrixBytes", options.matrixBytes, DEFAULT_MATRIX_BYTES, 2 ** 20, 2 ** 40);
  const resolved: ResolvedDrafterOptions = {
    matrixBytes,
    floorBytes: bounded("floorBytes", options.floorBytes, 0, 0, matrixBytes / 2),
    matrixWidth: bounded("matrixWidth", options.matrixWidth, 12, 1, 64),
    maxScopes: bounded("maxScopes", options.maxScopes, 64, 1, 65536),
    shareScopes: options.shareScopes ?? false,
    historyTokens: bounded("historyTokens", options.historyTokens, 2 ** 18, 0, 2 ** 26),
    without: options.without ?? [],
    trigramRate: bounded("trigramRate", options.trigramRate, 0.35, 0, 1),
    bigramRate: bounded("bigramRate", options.bigramRate, 0.3, 0, 1),
    unigramRate: bounded("unigramRate", options.unigramRate, 0.002, 0, 1),
    search: options.search ?? "best-first",
    exploration: bounded("exploration", options.exploration, 0.1, 0, 1000),
    effort: bounded("effort", options.effort, 1.25, 1, 100),
    maxNodes: bounded("maxNodes", options.maxNodes, 32, 1, 1024),
    maxDepth: bounded("maxDepth", options.maxDepth, 16, 1, 64),
    overheadUs: bounded("overheadUs", options.overheadUs, 150, 0, 1e9),
    learnFromPlain: options.learnFromPlain ?? false,
    seed: bounded("seed", options.seed, 1, -(2 ** 31), 2 ** 32),
  };
  if (options.fixedNodes !== undefined) {
    resolved.fixedNodes = bounded("fixedNodes", options.fixedNodes, 0, 0, 1024);
    resolved.maxNodes = Math.max(1, resolved.fixedNodes);
  }
  return resolved;
}

function bounded(
  name: string,
  value: number | undefined,
  fallback: number,
  least: number,
  most: number,
): number {
  if (value === undefined) return fallback;
  if (!(value >= least && value <= most)) {
    throw new AdedError("ADED_CONFIG", `drafter option ${name} = ${value} is out of range`, {
      hint: `set ${name} to a number from ${least} to ${most}, or leave it out for the default (${fallback})`,
    });
  }
  return value;
}

import { describe, expect, it } from "@jest/globals";
import { AcceptanceCounter } from "../../../src/drafter/acceptance.ts";
import {
  cellOf,
  RANK_ABSENT,
  rankOf,
  SOURCE_NAMES,
  SOURCE_SUFFIX,
  SOURCE_TRIGRAM,
  SOURCES,
} from "../../../src/drafter/calibration.ts";
import type { VerifiedSlot } from "../../../src/drafter/draft.ts";
import { Evidence } from "../../../src/drafter/prior.ts";

/** A root with two children, the second of which has a child; the second child and its child are accepted. */
const VERIFIED: VerifiedSlot = {
  slot: 0,
  accepted: Int32Array.of(12, 13, 14),
  nodes: Int32Array.of(10, 11, 12, 13),
  parents: Int32Array.of(-1, 0, 0, 2),
  path: Int32Array.of(0, 2, 3),
  k: 0,
  ids: new Int32Array(),
  probs: new Float32Array(),
  room: 8,
  draft: true,
};

describe("AcceptanceCounter", () => {
  it("counts nodes by depth", () => {
    const counter = new AcceptanceCounter();
    counter.countDepths(VERIFIED);
    counter.countDepths(VERIFIED);
    expect(counter.stats().by_depth).toEqual({ drafted: [4, 2], accepted: [2, 2] });
  });

  it("credits every source that named a node, and none that did not", () => {
    const evidence = new Evidence(8);
    evidence.cell.fill(-1);
    const name = (cell: number, source: number, rank: number): void => {
      evidence.cell[cell * SOURCES + source] = cellOf(source, 1, rank, 0.5, 0);
    };
    name(1, SOURCE_TRIGRAM, 0);
    name(2, SOURCE_TRIGRAM, 1);
    name(2, SOURCE_SUFFIX, 0);
    name(3, SOURCE_TRIGRAM, RANK_ABSENT);
    name(3, SOURCE_SUFFIX, 4);
    const counter = new AcceptanceCounter();
    counter.countSources(VERIFIED, Int32Array.of(0, 1, 2, 3), 4, evidence);
    expect(counter.stats().by_source).toMatchObject({
      trigram: { drafted: 2, accepted: 1 },
      suffix: { drafted: 2, accepted: 2 },
      bigram: { drafted: 0, accepted: 0 },
    });
  });

  it("has a name for every source, and knows the rank of every cell", () => {
    expect(SOURCE_NAMES).toHaveLength(SOURCES);
    for (let source = 0; source < SOURCES; source++) {
      for (const rank of [RANK_ABSENT, 0, 1, 4]) expect(rankOf(cellOf(source, 3, rank, 0.7, 2))).toBe(rank);
    }
  });
});

/**
 * Counts draft nodes that were verified and accepted: by depth (1 is a child of the root), and by the source that named
 * the token. A node that several sources named counts for each of them, so that the sources' sums exceed the nodes.
 */
import { RANK_ABSENT, rankOf, SOURCE_NAMES, SOURCE_RECENCY, SOURCES } from "./calibration.ts";
import type { VerifiedSlot } from "./draft.ts";
import type { Evidence } from "./prior.ts";

/** Deeper nodes count for the last depth. */
const DEPTHS = 32;

export interface Acceptance {
  /** Nodes by depth; index 0 is depth 1. Cut behind the deepest that was drafted. */
  by_depth: { drafted: number[]; accepted: number[] };
  by_source: Record<string, { drafted: number; accepted: number }>;
}

export class AcceptanceCounter {
  private readonly draftedAt = new Float64Array(DEPTHS);
  private readonly acceptedAt = new Float64Array(DEPTHS);
  private readonly draftedBy = new Float64Array(SOURCES);
  private readonly acceptedBy = new Float64Array(SOURCES);
  private depth = new Uint16Array(256);

  /** Counts the nodes of one verified tree by depth. */
  countDepths({ parents, path }: VerifiedSlot): void {
    const n = parents.length;
    if (n > this.depth.length) this.depth = new Uint16Array(2 * n);
    const { depth, draftedAt, acceptedAt } = this;
    depth[0] = 0;
    for (let i = 1; i < n; i++) {
      depth[i] = depth[parents[i]] + 1;
      draftedAt[Math.min(depth[i], DEPTHS) - 1]++;
    }
    for (let j = 1; j < path.length; j++) acceptedAt[Math.min(j, DEPTHS) - 1]++;
  }

  /**
   * Counts them by source.
   * @param cellOfNode cell of the drafter's tree by node, -1 for a node that it does not know
   * @param n nodes in `cellOfNode`
   */
  countSources({ path }: VerifiedSlot, cellOfNode: Int32Array, n: number, evidence: Evidence): void {
    for (let i = 1; i < n; i++) this.credit(this.draftedBy, cellOfNode[i], evidence);
    for (let j = 1; j < path.length; j++) {
      if (path[j] < n) this.credit(this.acceptedBy, cellOfNode[path[j]], evidence);
    }
  }

  private credit(counts: Float64Array, cell: number, { cell: claims }: Evidence): void {
    if (cell < 0) return;
    for (let source = 0; source < SOURCES; source++) {
      const claim = claims[cell * SOURCES + source];
      if (source !== SOURCE_RECENCY && claim >= 0 && rankOf(claim) !== RANK_ABSENT) counts[source]++;
    }
  }

  stats(): Acceptance {
    let deepest = DEPTHS;
    while (deepest > 0 && this.draftedAt[deepest - 1] === 0) deepest--;
    const bySource: Acceptance["by_source"] = {};
    for (let source = 0; source < SOURCES; source++) {
      if (source === SOURCE_RECENCY) continue; // it names no tokens
      bySource[SOURCE_NAMES[source]] = { drafted: this.draftedBy[source], accepted: this.acceptedBy[source] };
    }
    return {
      by_depth: {
        drafted: Array.from(this.draftedAt.subarray(0, deepest)),
        accepted: Array.from(this.acceptedAt.subarray(0, deepest)),
      },
      by_source: bySource,
    };
  }
}

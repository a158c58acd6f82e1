/** Counts the garbage collector's pauses in this thread. */
import { constants, type PerformanceEntry, PerformanceObserver } from "node:perf_hooks";
import type { GarbageFigures, GarbagePauses } from "../engine/engine.ts";

const none = (): GarbagePauses => ({ pauses: 0, total_ms: 0, longest_ms: 0 });

interface GarbageEntry extends PerformanceEntry {
  readonly detail?: { readonly flags?: number };
}

export class GarbageWatch {
  readonly figures: GarbageFigures = { ...none(), at_rest: none() };
  readonly #observer = new PerformanceObserver((list) => {
    for (const { duration, detail } of list.getEntries() as GarbageEntry[]) {
      const forced = ((detail?.flags ?? 0) & constants.NODE_PERFORMANCE_GC_FLAGS_FORCED) !== 0;
      const figures = forced ? this.figures.at_rest : this.figures;
      figures.pauses++;
      figures.total_ms += duration;
      figures.longest_ms = Math.max(figures.longest_ms, duration);
    }
  });

  /** Begins to count; again: from nothing. */
  start(): void {
    this.#observer.disconnect();
    Object.assign(this.figures, { ...none(), at_rest: none() });
    this.#observer.observe({ entryTypes: ["gc"] });
  }

  stop(): void {
    this.#observer.disconnect();
  }
}

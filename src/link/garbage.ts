/** Counts the garbage collector's pauses in this thread. */
import { PerformanceObserver } from "node:perf_hooks";

export interface GarbageFigures {
  /** Collections since the watch began, what all of them took, and the longest, ms. */
  pauses: number;
  total_ms: number;
  longest_ms: number;
}

export class GarbageWatch {
  readonly figures: GarbageFigures = { pauses: 0, total_ms: 0, longest_ms: 0 };
  readonly #observer = new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) {
      this.figures.pauses++;
      this.figures.total_ms += duration;
      this.figures.longest_ms = Math.max(this.figures.longest_ms, duration);
    }
  });

  /** Begins to count; again: from nothing. */
  start(): void {
    this.#observer.disconnect();
    Object.assign(this.figures, { pauses: 0, total_ms: 0, longest_ms: 0 });
    this.#observer.observe({ entryTypes: ["gc"] });
  }

  stop(): void {
    this.#observer.disconnect();
  }
}

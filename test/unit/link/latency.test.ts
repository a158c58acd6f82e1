import { describe, expect, it } from "@jest/globals";
import { LatencyRing } from "../../../src/link/latency.ts";

describe("LatencyRing", () => {
  it("has no quantiles before anything was measured", () => {
    expect(new LatencyRing().quantiles()).toEqual({ p50: null, p99: null });
  });

  it("gives nearest-rank quantiles", () => {
    const ring = new LatencyRing();
    for (let us = 100; us >= 1; us--) ring.record(us);
    expect(ring.quantiles()).toEqual({ p50: 50, p99: 99 });
  });

  it("forgets all but the last 4096", () => {
    const ring = new LatencyRing();
    for (let i = 0; i < 1000; i++) ring.record(1e6);
    for (let i = 0; i < 4096; i++) ring.record(5);
    expect(ring.quantiles()).toEqual({ p50: 5, p99: 5 });
  });

  it("shows another thread's ring what was recorded", () => {
    const ring = new LatencyRing();
    const view = new LatencyRing(ring.buffer);
    ring.record(7);
    expect(view.quantiles()).toEqual({ p50: 7, p99: 7 });
  });
});

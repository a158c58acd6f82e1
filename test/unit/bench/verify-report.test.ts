import { describe, expect, it } from "@jest/globals";
import type { VerifyOptions, VerifyRun, VerifySetup } from "../../../src/bench/verify.ts";
import { formatVerify } from "../../../src/bench/verify-format.ts";
import { reportVerify, verifyEnvironment } from "../../../src/bench/verify-report.ts";

const setup: VerifySetup = {
  program: "p",
  own: { libraries: "/own", batchInvariant: true },
  stock: { libraries: "/stock", batchInvariant: false },
  modelPath: "toy.gguf",
  threads: 2,
  cacheType: "f16",
};
const options: VerifyOptions = { widths: [1, 8], depth: 256, checkDepths: [], rounds: 6, seed: 1 };
const weights = { bytes: 90e6, parameters: 135e6, types: { Q8_0: 30e6, Q4_0: 60e6 } };

/** Six rounds that begin at `us` and grow by a hundredth a round. */
const rounds = (us: number): number[][] =>
  Array.from({ length: 6 }, (_, i) => [0, 1, 2].map((j) => us * (1 + 0.01 * i) + j));

const check = (n: number, identical = true, max = 0) => ({ depth: 256, n, identical, max_diff: max });

const whole = (): VerifyRun => ({
  checks: { own: [check(1), check(8)], stock: [check(1), check(8, false, 0.25)] },
  checked: true,
  memory: [9, 10, 11, 12, 13],
  system: { own: "CPU : AVX2 = 1", stock: "CPU : AVX2 = 1" },
  samples: {
    own: { 1: rounds(1000), 8: rounds(1200), prefill: rounds(50_000).map(([us]) => [us]) },
    stock: { 1: rounds(2000), 8: rounds(6000), prefill: rounds(60_000).map(([us]) => [us]) },
  },
});

const reportOf = (run: VerifyRun, changes: { setup?: VerifySetup; rounds?: number } = {}) =>
  reportVerify({
    run,
    model: { name: "toy", file: "toy.gguf" },
    weights,
    setup: changes.setup ?? setup,
    options: { ...options, rounds: changes.rounds ?? 6 },
    environment: verifyEnvironment("aded bench verify", 0.1),
  });

describe("reportVerify", () => {
  it("gives costs, medians and ratios to both builds' cost of one token", () => {
    const report = reportOf(whole());
    // of 18 samples the lower quartile is between the fifth and the sixth: 1011 and 1012, a quarter of the way
    expect(report.cost_us["1"]).toBe(1011.25);
    expect(report.median_us.own["1"]).toBe((1022 + 1030) / 2);
    expect(Object.keys(report.cost_us)).toEqual(["1", "8"]);
    expect(report.ratio["1"]).toBe(1);
    expect(report.ratio["8"]).toBeCloseTo(1.2, 2);
    expect(report.ratio_to_stock?.["8"]).toBeCloseTo(0.6, 2);
    expect(report.stock_ratio?.["8"]).toBeCloseTo(3, 2);
    expect(report.prefill_512.own).toBe(50_625);
    expect(report).toMatchObject({
      model: "toy",
      threads: 2,
      identical: true,
      stock_identical: false,
      kernels: { own: "batch-invariant", stock: "stock" },
      complete: true,
      error: null,
      weights,
      memory_gb_s: 12,
      system: { own: "CPU : AVX2 = 1" },
    });
  });

  it("puts an interval round every figure; what moves both sides of a ratio cancels out", () => {
    const { intervals, cost_us: cost, ratio_to_stock: ratio } = reportOf(whole());
    const [low, high] = intervals.cost_us["8"] as [number, number];
    expect(low).toBeLessThan(cost["8"]);
    expect(high).toBeGreaterThan(cost["8"]);
    const [ratioLow, ratioHigh] = intervals.ratio_to_stock!["8"]!;
    expect(ratioHigh - ratioLow).toBeLessThan((high - low) / 4000);
    expect(ratioLow).toBeLessThanOrEqual(ratio?.["8"] as number);
    expect(ratioHigh).toBeGreaterThanOrEqual(ratio?.["8"] as number);
    expect(intervals.ratio["1"]).toEqual([1, 1]);
    expect(intervals.prefill_512.stock).not.toBeNull();
    expect(reportOf(whole()).intervals).toEqual(intervals);
  });

  it("claims no interval for fewer than five rounds", () => {
    const run = whole();
    for (const samples of Object.values(run.samples)) {
      for (const [turn, all] of Object.entries(samples)) samples[turn] = all.slice(0, 4);
    }
    const { intervals, cost_us: cost } = reportOf(run);
    expect(intervals.cost_us).toEqual({ 1: null, 8: null });
    expect(cost["1"]).toBeGreaterThan(1000);
  });

  it("reports what an interrupted run has measured", () => {
    const run = whole();
    run.samples.own["8"].pop();
    delete run.samples.stock["8"];
    run.stopped = new Error("interrupted (SIGINT)");
    const report = reportOf(run);
    expect(report).toMatchObject({ complete: false, error: "interrupted (SIGINT)" });
    expect(Object.keys(report.stock_cost_us ?? {})).toEqual(["1"]);
    expect(report.intervals.cost_us["8"]).not.toBeNull();
    expect(formatVerify(report)).toMatch(/^8 +1\.21 .* N\/A +N\/A$/m);
  });

  it("knows that logits are the same only when all were compared; one difference is enough", () => {
    const run = whole();
    run.checked = false;
    run.checks.stock = [check(1)];
    expect(reportOf(run)).toMatchObject({ identical: null, stock_identical: null });
    run.checks.own[1].identical = false;
    expect(reportOf(run).identical).toBe(false);
  });

  it("is about the own build alone without the stock build", () => {
    const run = whole();
    run.samples.stock = {};
    run.checks.stock = [];
    expect(reportOf(run, { setup: { ...setup, stock: undefined } })).toMatchObject({
      stock_cost_us: null,
      ratio_to_stock: null,
      stock_ratio: null,
      stock_identical: null,
      prefill_512: { stock: null },
      median_us: { stock: {} },
      kernels: { stock: null },
    });
  });
});

describe("formatVerify", () => {
  it("prints a table, bars in units of the stock build's single token, and what the checks found", () => {
    const text = formatVerify(reportOf(whole()));
    expect(text).toMatch(/^toy on .*, 2 threads$/m);
    expect(text).toMatch(/^8 +1\.21 +1\.20-1\.24 +1\.20 +0\.60 +0\.60-0\.60 +6\.06 +3\.00$/m);
    expect(text).toMatch(/^prompt of 512 +50\.63 /m);
    expect(text).toMatch(/^ {3}8 own {3}█{10} 0\.60\n {5}stock ░{48} 3\.00$/m);
    expect(text).toContain(
      "A step reads 90.0 MB of weights (Q4_0 60.0, Q8_0 30.0): 89.0 GB/s with 1 token (memory gives 12.0)",
    );
    expect(text).toContain("Identical to one-by-one decoding: batches of 1, 8 tokens at depth 256.");
    expect(text).toContain("The stock build's logits differ for batches of 8: by up to 0.250.");
    expect(text).not.toContain("Note:");
  });

  it("names every difference, a busy machine, and an early end", () => {
    const run = whole();
    run.checks.own[1] = check(8, false, 0.125);
    run.stopped = new Error("died\nof something");
    const report = reportOf(run);
    report.environment.load = 2;
    const text = formatVerify(report);
    expect(text).toContain("(NOT COMPLETE)");
    expect(text).toContain("NOT IDENTICAL: batches of 8 at depth 256: a logit differs by 0.125.");
    expect(text).toContain("load 2");
    expect(text).toMatch(/^Note: ended early: died$/m);
    expect(text).not.toContain("Identical to");
  });

  it("prints no table when nothing was measured", () => {
    const run = { ...whole(), samples: { own: {}, stock: {} } };
    const text = formatVerify(reportOf(run, { rounds: 0 }));
    expect(text).not.toContain("own ms");
    expect(text).toMatch(/^256 tokens in the cache \(f16\), logits compared only$/m);
    expect(text).toContain("Identical to");
  });
});

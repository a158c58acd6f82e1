/** Does the instrument tell the truth? Equal arms must look equal as often as promised, and a delay of 5 % must be found. */
import { describe, expect, it } from "@jest/globals";
import { type AbOptions, runAb } from "../../../src/bench/ab.ts";
import { decodeRatio, medianRatio } from "../../../src/bench/ab-report.ts";
import { narrowEnough, planLooks } from "../../../src/bench/sequential.ts";
import { NoisyClient } from "./support/noisy-client.ts";

function options(pairs: number, seed: number): AbOptions {
  const prompts = Array.from({ length: pairs }, (_, i) => ({
    id: String(i),
    category: "x",
    text: `prompt ${i * 7919 + seed}`,
  }));
  return { prompts, maxTokens: 160, repeat: 1, concurrency: 1, seed, temperature: 0, warmup: 0 };
}

async function interval(pairs: number, seed: number, factor: number, disturbed?: number) {
  const asked = options(pairs, seed);
  const run = await runAb(new NoisyClient({ seed, factor, disturbed }), asked);
  return decodeRatio(run.samples, { seed, level: 0.95, resamples: 2000 });
}

async function medianInterval(seed: number, factor: number) {
  const run = await runAb(new NoisyClient({ seed, factor }), options(100, seed));
  const { ci } = medianRatio(run.samples, { seed, level: 0.95, resamples: 1000 });
  return { low: ci?.[0] ?? Number.NaN, high: ci?.[1] ?? Number.NaN };
}

describe("A/A", () => {
  it("covers 1 in at least 18 of 20 runs of 100 pairs, and in about 95 of 100", async () => {
    const covered: boolean[] = [];
    for (let seed = 1; seed <= 100; seed++) {
      const { ci } = await interval(100, seed, 1);
      covered.push(ci !== null && ci[0] <= 1 && ci[1] >= 1);
    }
    expect(covered.slice(0, 20).filter(Boolean).length).toBeGreaterThanOrEqual(18);
    const all = covered.filter(Boolean).length;
    // 95 ± 3 standard deviations
    expect(all).toBeGreaterThanOrEqual(88);
    // an interval that always covers would be useless
    expect(all).toBeLessThan(100);
  });

  it("covers it as often with ten pairs", async () => {
    let covered = 0;
    for (let seed = 1; seed <= 200; seed++) {
      const { ci } = await interval(10, seed, 1);
      if (ci !== null && ci[0] <= 1 && ci[1] >= 1) covered++;
    }
    expect(covered).toBeGreaterThanOrEqual(180);
  });

  it("finds a delay of 5 % within 100 pairs on a machine that nothing else disturbs", async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const { ci } = await interval(100, seed, 1.05, 0);
      expect(ci?.[1]).toBeLessThan(1);
      expect(ci?.[0]).toBeGreaterThan(0.9);
    }
  });

  it("finds it more seldom where requests are disturbed, and then claims nothing", async () => {
    let found = 0;
    let covered = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const { ci } = await interval(100, seed, 1.05);
      if (ci !== null && ci[1] < 1) found++;
      if (ci !== null && ci[0] <= 1 / 1.05 && ci[1] >= 1 / 1.05) covered++;
    }
    expect(found).toBeGreaterThan(0);
    expect(found).toBeLessThan(20);
    expect(covered).toBeGreaterThanOrEqual(18);
  });

  it("finds it there with the median of the pairs, which covers the truth as often", async () => {
    let found = 0;
    let covered = 0;
    let coveredEqual = 0;
    for (let seed = 1; seed <= 40; seed++) {
      const slower = await medianInterval(seed, 1.05);
      if (slower.high < 1) found++;
      if (slower.low <= 1 / 1.05 && slower.high >= 1 / 1.05) covered++;
      const equal = await medianInterval(seed, 1);
      if (equal.low <= 1 && equal.high >= 1) coveredEqual++;
    }
    expect(found).toBeGreaterThanOrEqual(36);
    // 95 % less 3 standard deviations
    expect(covered).toBeGreaterThanOrEqual(34);
    expect(coveredEqual).toBeGreaterThanOrEqual(34);
  });

  it("covers the truth as often when it may stop early", async () => {
    let covered = 0;
    let early = 0;
    for (let seed = 1; seed <= 100; seed++) {
      const asked = options(100, seed);
      const plan = planLooks(100, { width: 0.12, looks: 5 });
      const level = plan.level;
      const run = await runAb(new NoisyClient({ seed, factor: 1 }), asked, {
        looks: plan.looks,
        enough: (samples) => narrowEnough(decodeRatio(samples, { seed, level, resamples: 2000 }), plan.width),
      });
      if (run.early) early++;
      const { ci } = decodeRatio(run.samples, { seed, level, resamples: 2000 });
      if (ci !== null && ci[0] <= 1 && ci[1] >= 1) covered++;
    }
    expect(early).toBeGreaterThan(10);
    expect(covered).toBeGreaterThanOrEqual(92);
  });
});

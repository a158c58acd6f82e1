import { describe, expect, it } from "@jest/globals";
import {
  bootstrapMedian,
  bootstrapRatio,
  median,
  quantile,
  quantiles,
  ratioOfSums,
} from "../../../src/bench/statistics.ts";

describe("statistics", () => {
  it("gives type-7 quantiles", () => {
    // R: quantile(c(1, 2, 3, 4, 10), c(0, 0.25, 0.5, 0.9, 1))
    const sorted = [1, 2, 3, 4, 10];
    expect([0, 0.25, 0.5, 1].map((q) => quantile(sorted, q))).toEqual([1, 2, 3, 10]);
    expect(quantile(sorted, 0.9)).toBeCloseTo(7.6, 12);
  });

  it("gives the median of unsorted values, even and odd in number", () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([10, 1, 2, 4])).toBe(3);
    expect(quantiles([10, 1, 2, 4])?.p50).toBe(3);
  });

  it("has nothing to say of no values", () => {
    expect(quantile([], 0.5)).toBeNull();
    expect(median([])).toBeNull();
    expect(quantiles([])).toBeNull();
    expect(ratioOfSums([])).toBeNull();
    expect(ratioOfSums([{ numerator: 1, denominator: 0 }])).toBeNull();
    expect(bootstrapRatio([], { seed: 1 })).toBeNull();
    const four = [1, 2, 3, 4].map((numerator) => ({ numerator, denominator: 2 }));
    expect(bootstrapRatio(four, { seed: 1 })).toBeNull();
  });

  it("weighs units by their size in a ratio of sums", () => {
    expect(
      ratioOfSums([
        { numerator: 300, denominator: 100 },
        { numerator: 10, denominator: 10 },
      ]),
    ).toBeCloseTo(310 / 110, 12);
  });

  it("gives an interval without width when every unit has the same ratio", () => {
    const units = Array.from({ length: 20 }, (_, i) => ({ numerator: 2 * (i + 1), denominator: i + 1 }));
    expect(bootstrapRatio(units, { seed: 3 })).toEqual({ low: 2, high: 2 });
  });

  it("comes near the textbook interval of a mean, and repeats itself for the same seed", () => {
    // Values 1 … 100: mean 50.5, standard error 28.87 / sqrt(100) = 2.887, normal interval 50.5 ± 1.96 * 2.887.
    const units = Array.from({ length: 100 }, (_, i) => ({ numerator: i + 1, denominator: 1 }));
    const interval = bootstrapRatio(units, { seed: 7 });
    expect(interval?.low).toBeCloseTo(50.5 - 5.66, 0);
    expect(interval?.high).toBeCloseTo(50.5 + 5.66, 0);
    expect(bootstrapRatio(units, { seed: 7 })).toEqual(interval);
    expect(bootstrapRatio(units, { seed: 8 })).not.toEqual(interval);
  });

  it("gives the median of groups, and an interval that one wild value hardly moves", () => {
    expect(bootstrapMedian([[3, 1], [2], [10], [4], [7]], { seed: 1 }).median).toBe(3.5);
    expect(bootstrapMedian([], { seed: 1 })).toEqual({ median: null, interval: null });
    expect(bootstrapMedian([[1], [2], [3], [4]], { seed: 1 }).interval).toBeNull();
    const values = Array.from({ length: 101 }, (_, i) => [i + 1]);
    const calm = bootstrapMedian(values, { seed: 1 });
    expect(calm.median).toBe(51);
    // the order statistics that a binomial distribution gives: ranks 41 and 61
    expect(Math.abs((calm.interval?.low ?? 0) - 41)).toBeLessThanOrEqual(2);
    expect(Math.abs((calm.interval?.high ?? 0) - 61)).toBeLessThanOrEqual(2);
    const wild = bootstrapMedian([...values.slice(0, -1), [1e9]], { seed: 1 });
    expect(wild).toEqual(calm);
  });
});

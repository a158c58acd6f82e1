import { describe, expect, it } from "@jest/globals";
import { firstDifference, reportSameText, type TokenRun } from "../../../src/bench/same-text.ts";

const prompt = { id: "1", category: "c", text: "t" };

function run(tokens: number[], top: [number, number][][], accepted: number): TokenRun {
  return {
    tokens,
    logprobs: tokens.map((id, i) => top[i].find((entry) => entry[0] === id)?.[1] ?? Number.NaN),
    top: top.map((entries) => entries.map(([id, logprob]) => ({ id, logprob }))),
    accepted,
  };
}

describe("same-text report", () => {
  it("finds the first difference, also where one answer is a prefix of the other", () => {
    expect(firstDifference([1, 2, 3], [1, 2, 3])).toBe(-1);
    expect(firstDifference([1, 2, 3], [1, 5, 3])).toBe(1);
    expect(firstDifference([1, 2], [1, 2, 3])).toBe(2);
  });

  const shared: [number, number][] = [
    [1, -0.5],
    [2, -1.5],
  ];
  const noisy: [number, number][] = [
    [1, -0.52],
    [2, -1.47],
  ];

  it("calls a difference within the noise a near-tie, and one beyond it not", () => {
    const tie: [number, number][] = [
      [3, -0.7],
      [4, -0.74],
    ];
    const clear: [number, number][] = [
      [3, -0.1],
      [4, -2.4],
    ];
    const report = reportSameText([
      { prompt, off: run([1, 3], [shared, tie], 0), on: run([1, 4], [noisy, tie], 1) },
      { prompt, off: run([1, 3], [shared, clear], 0), on: run([1, 4], [noisy, clear], 0) },
      { prompt, off: run([1], [shared], 0), on: run([1], [noisy], 0) },
    ]);
    expect(report.n).toBe(3);
    expect(report.same_text).toBe(1);
    expect(report.margin_noise.max).toBeCloseTo(0.05, 6);
    expect(report.logprob_noise.max).toBeCloseTo(0.02, 6);
    expect(report.differences.map(({ near_tie }) => near_tie)).toEqual([true, false]);
    expect(report.differences[0].margin).toBeCloseTo(0.04, 6);
    expect(report.near_ties).toBe(1);
    expect(report.tokens_per_step).toBeCloseTo(5 / 4, 6);
  });

  it("is no near-tie when the other token was not among the likeliest at all", () => {
    const report = reportSameText([
      { prompt, off: run([1, 1], [shared, shared], 0), on: run([1, 9], [noisy, [[9, -0.1]]], 1) },
    ]);
    expect(report.differences).toEqual([expect.objectContaining({ margin: null, near_tie: false })]);
  });

  it("refuses to report when no draft was accepted", () => {
    expect(() => reportSameText([{ prompt, off: run([1], [shared], 0), on: run([1], [noisy], 0) }])).toThrow(
      /no draft was accepted/,
    );
  });
});

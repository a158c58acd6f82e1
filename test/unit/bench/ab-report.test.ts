import { describe, expect, it } from "@jest/globals";
import { formatCsv, formatMarkdown, formatTable } from "../../../src/bench/ab-format.ts";
import { type AbReport, reportAb } from "../../../src/bench/ab-report.ts";
import type { AbSample } from "../../../src/bench/ab-sample.ts";
import { AdedError } from "../../../src/errors.ts";
import { ENVIRONMENT, OPTIONS } from "./support/reports.ts";

function sample(id: string, arm: "on" | "off", change: Partial<AbSample> = {}): AbSample {
  return {
    id,
    category: id.split("/")[0],
    repeat: 0,
    arm,
    first: arm === "on",
    error: null,
    seed: 1,
    arm_header: arm,
    finish_reason: "stop",
    text: `text of ${id}`,
    clock: "engine",
    prompt_n: 5,
    prompt_ms: 3,
    cache_n: 0,
    predicted_n: 11,
    decode_ms: arm === "on" ? 50 : 100,
    draft_n: arm === "on" ? 12 : 0,
    draft_n_accepted: arm === "on" ? 5 : 0,
    ttft_ms: 4,
    tpot_ms: 10,
    e2e_ms: arm === "on" ? 60 : 110,
    gaps_ms: [10, 20],
    gap_events: [1, 2],
    ...change,
  };
}

const FIVE = [1, 2, 3, 4, 5];

function pair(id: string, on: Partial<AbSample> = {}, off: Partial<AbSample> = {}): AbSample[] {
  return [sample(id, "on", on), sample(id, "off", off)];
}

function report(samples: AbSample[], stopped?: AdedError): AbReport {
  return reportAb({ samples, complete: stopped === undefined, stopped }, OPTIONS, ENVIRONMENT);
}

describe("reportAb", () => {
  it("gives the ratio of total decode times, overall and by category", () => {
    const made = report([
      ...FIVE.flatMap((n) => pair(`x/${n}`)),
      ...pair("y/1", { decode_ms: 100, ttft_ms: 20 }, { decode_ms: 100 }),
    ]);
    expect(made.overall).toMatchObject({ ratio: 600 / 350, n: 6 });
    expect(made.overall.ci?.[0]).toBeLessThan(600 / 350);
    expect(made.overall.ci?.[1]).toBe(2);
    expect(made.categories).toEqual({
      x: { ratio: 2, ci: [2, 2], n: 5 },
      y: { ratio: 1, ci: null, n: 1 },
    });
    expect(made.overall.e2e.ratio).toBeCloseTo(660 / 360, 12);
    expect(made.overall.ttft).toMatchObject({ ratio: 24 / 40, n: 6 });
    expect(made).toMatchObject({ n: 6, same_text: 6, complete: true, arm_verified: true, notes: [] });
  });

  it("compares per token where the texts differ in length", () => {
    const made = report(pair("x/1", { predicted_n: 21, decode_ms: 100, text: "longer" }, { decode_ms: 100 }));
    expect(made.overall.ratio).toBeCloseTo(2, 12);
  });

  it("counts tokens per step without the first token, which the prompt's pass brings", () => {
    // 10 tokens after the first, 5 of them accepted drafts: 5 steps.
    const { arms, tokens_per_step } = report(pair("x/1"));
    expect(tokens_per_step).toBe(2);
    expect(arms.off.tokens_per_step).toBe(1);
    expect(arms.on).toMatchObject({ tok_s: 200, acceptance: 5 / 12, tokens: 11, requests: 1, failed: 0 });
    expect(arms.off).toMatchObject({ tok_s: 100, acceptance: null });
  });

  it("shares a chunk's gap among the tokens it brings", () => {
    const { on } = report(pair("x/1")).arms;
    expect(on.itl_ms).toEqual({ p50: 10, p95: 10, p99: 10 });
    expect(on.itl_chunk_ms?.p50).toBe(15);
  });

  it("shows where texts part", () => {
    const made = report([
      ...pair("x/1", { text: "same, then on" }, { text: "same, then off" }),
      ...pair("x/2"),
    ]);
    expect(made.same_text).toBe(1);
    expect(made.differences).toEqual([
      { id: "x/1", category: "x", repeat: 0, index: 12, on: "n", off: "ff" },
    ]);
  });

  it("takes the repeats of a prompt as one unit of the interval", () => {
    const samples = FIVE.flatMap((repeat) => pair("x/1", { repeat }, { repeat }));
    expect(report(samples).overall).toMatchObject({ ratio: 2, ci: null, n: 5 });
  });

  it("leaves failed requests out and says so", () => {
    const made = report([...pair("x/1"), ...pair("x/2", { error: "told to fail" })]);
    expect(made).toMatchObject({ n: 1, arms: { on: { requests: 1, failed: 1 }, off: { requests: 2 } } });
    expect(made.notes).toEqual(["Failed requests, which do not count: 1; the first: told to fail."]);
  });

  it.each([
    [
      "an on-arm that was not on",
      pair("x/1", { arm_header: null, draft_n: 0 }),
      /not on for every request .*none: 1/,
    ],
    ["an on-arm that drafted nothing", pair("x/1", { draft_n: 0, draft_n_accepted: 0 }), /drafted nothing/],
    ["an off-arm with drafts", pair("x/1", {}, { draft_n: 3 }), /off-arm was drafted for/],
    ["a prompt cache in use", pair("x/1", { cache_n: 4 }), /used the prompt cache .*: 1\./],
    ["a server without timings", pair("x/1", { clock: "client" }), /gives no timings/],
  ])("notes %s", (_name, samples, note) => {
    const made = report(samples);
    expect(made.notes).toHaveLength(1);
    expect(made.notes[0]).toMatch(note);
  });

  it("verifies the on-arm by the header only", () => {
    expect(report(pair("x/1", { arm_header: "off" })).arm_verified).toBe(false);
    expect(report([]).arm_verified).toBe(false);
  });
});

describe("formats", () => {
  it("print N/A where nothing was measured, never a figure", () => {
    const empty = report([], new AdedError("ADED_INTERRUPTED", "interrupted"));
    expect(empty).toMatchObject({
      overall: { ratio: null, ci: null, n: 0 },
      tokens_per_step: null,
      complete: false,
      arms: { on: { tok_s: null, ttft_ms: null, acceptance: null } },
    });
    const table = formatTable(empty);
    expect(table).toMatch(/^overall +N\/A +N\/A +0$/m);
    expect(table).toMatch(/^TTFT ms, p50\/p95\/p99 +N\/A +N\/A$/m);
    expect(table).toContain("(NOT COMPLETE)");
    expect(table).toContain("Note: Not complete: interrupted.");
  });

  it("print ratios, arms and notes as a table and as Markdown", () => {
    const made = report([...pair("x/1", { text: "on" }), ...FIVE.flatMap((n) => pair(`y/${n}`))]);
    const table = formatTable(made);
    expect(table).toMatch(/^overall +2\.000 +2\.000 - 2\.000 +6$/m);
    expect(table).toMatch(/^ {2}x +2\.000 +N\/A +1$/m);
    expect(table).toMatch(/^drafts accepted +30 of 72 \(41\.7 %\) +N\/A$/m);
    expect(table).toContain("Same text: 5 of 6 pairs.");
    expect(formatMarkdown(made)).toContain("| overall | 2.000 | 2.000 - 2.000 | 6 |");
  });

  it("write one CSV line per request, quoted where needed, empty where nothing was measured", () => {
    const [head, first, second] = formatCsv(
      report(pair("x/1", {}, { error: 'said "no", twice', ttft_ms: null })),
    ).split("\r\n");
    expect(head).toMatch(/^id,category,repeat,arm,/);
    expect(first).toMatch(/^x\/1,x,0,on,true,,,1,on,stop,engine,5,3,0,11,50,12,5,4,,,10,60$/);
    expect(second).toContain('"said ""no"", twice"');
    expect(second).toMatch(/,,10,110$/);
  });
});

import { describe, expect, it } from "@jest/globals";
import { runDraft } from "../../../src/bench/draft.ts";
import { completeTraces } from "../../../src/bench/draft-complete.ts";
import { formatDraft, formatDraftMarkdown } from "../../../src/bench/draft-format.ts";
import { plotDraft } from "../../../src/bench/draft-plot.ts";
import { reportDraft } from "../../../src/bench/draft-report.ts";
import { textTrace } from "../simulator/support/traces.ts";

const options = { nodes: [3, 7], topK: 4, seed: 1, peers: true, ablations: true };
const traces = () =>
  Array.from({ length: 6 }, (_, i) =>
    textTrace(
      `t${i}`,
      [1, 2, 3],
      Array.from({ length: 40 }, (_unused, at) => 10 + ((at * (1 + (i % 2))) % 7)),
      { category: i % 2 === 0 ? "even" : "odd" },
    ),
  );

describe("bench draft", () => {
  it("reports tokens per step, intervals, ratios to every peer, ablations and times", async () => {
    const texts = traces();
    const notes: string[] = [];
    const run = await runDraft(texts, options, { onProgress: ({ note }) => notes.push(note) });
    const report = reportDraft(run, texts, options, { files: ["x.jsonl"], command: "aded bench draft" });
    expect(Object.keys(report.tokens_per_step)).toEqual(["3", "7"]);
    expect(report.tokens_per_step["7"]).toBeGreaterThan(1.5);
    const [low, high] = report.ci["7"] as [number, number];
    expect(low).toBeLessThanOrEqual(report.tokens_per_step["7"]);
    expect(high).toBeGreaterThanOrEqual(report.tokens_per_step["7"]);
    expect(report.us_nodes).toBe(7);
    expect(report.us_per_draft.p50).toBeGreaterThan(0);
    expect(Object.keys(report.peers)).toEqual([
      "paper",
      "prompt lookup",
      "Token Recycling",
      "SAM[TR]",
      "SuffixDecoding",
      "LogitSpec",
      "RACER",
    ]);
    for (const peer of Object.values(report.peers)) {
      expect(peer.ratio["7"].ratio).toBeCloseTo(report.tokens_per_step["7"] / peer.tokens_per_step["7"], 2);
      expect(peer.ratio["7"].ci).not.toBeNull();
    }
    expect(report.peers["SuffixDecoding"].variant?.["7"]).toMatch(/factor [124]/);
    // of made-up texts nothing is known beside them
    expect(report.known["7"]).toBe(0);
    // no row has more than twelve successors here, but some have more than four
    expect(report.ablations["top-k 16"]["7"]).toBe(report.tokens_per_step["7"]);
    expect(report.ablations["top-k 4"]["7"]).not.toBe(report.tokens_per_step["7"]);
    expect(Object.keys(report.categories)).toEqual(["even", "odd"]);
    expect(report.traces).toMatchObject({ texts: 6, tokens: 240, off_path_nodes: 0, temperatures: [0] });
    expect(notes).toContain("RACER, 7 nodes");

    const table = formatDraft(report);
    for (const words of ["LogitSpec", "Ablations", "even", "Best variant", "know only 0 %"]) {
      expect(table).toContain(words);
    }
    expect(formatDraftMarkdown(report)).toContain("| aded |");
    const svg = plotDraft(report);
    expect(svg.match(/<polyline/g)).toHaveLength(8);
    expect(svg).not.toContain("NaN");
  });

  it("stops when it is told to", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(runDraft(traces(), options, { signal })).rejects.toThrow("enough");
  });
});

describe("completing traces", () => {
  const bench = { ...options, nodes: [3, 7], ablations: false };
  /** Says the same after every occurrence of a token, as a real model nearly does: what depends on chance alone, rules never stop drafting anew. */
  const model = async (_prompt: Int32Array, tree: { tokens: Int32Array }, k: number) => ({
    ids: Int32Array.from(
      { length: tree.tokens.length * k },
      (_, i) => 10 + ((tree.tokens[(i / k) | 0] + (i % k)) % 7),
    ),
    probs: Float32Array.from({ length: tree.tokens.length * k }, (_, i) => 0.5 ** ((i % k) + 1)),
  });

  it("asks until hardly a rejected node is unknown, and tells what is new", async () => {
    const texts = traces();
    const unknown: number[] = [];
    let told = 0;
    const left = await completeTraces(texts, model, {
      bench,
      rounds: 20,
      onRound: (round) => unknown.push(round.unknown),
      onText: (_trace, nodes) => {
        told += nodes.length;
      },
    });
    expect(left).toBeLessThanOrEqual(0.02);
    expect(unknown[0]).toBeGreaterThan(0);
    expect(told).toBe(texts.reduce((sum, { offPath }) => sum + (offPath?.count ?? 0), 0));
    const run = await runDraft(texts, { ...bench, nodes: [7] });
    for (const { name, cells } of [run.own, ...run.peers]) {
      const { known, rejected } = cells[0].result;
      expect({ name, most: known >= 0.9 * rejected }).toEqual({ name, most: true });
    }
  });

  it("ends when its time is over, with what it has", async () => {
    const texts = traces();
    await completeTraces(texts, model, { bench, limitMs: 0 });
    const counts = texts.map(({ offPath }) => offPath?.count ?? 0);
    expect(counts.filter((count) => count > 0)).toHaveLength(1);
  });

  it("passes the caller's abort on", async () => {
    const controller = new AbortController();
    const stopped = completeTraces(traces(), model, {
      bench,
      signal: controller.signal,
      onText: () => controller.abort(new Error("enough")),
    });
    await expect(stopped).rejects.toThrow("enough");
  });
});

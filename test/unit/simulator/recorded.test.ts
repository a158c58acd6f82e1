import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "@jest/globals";
import { runDraft } from "../../../src/bench/draft.ts";
import type { Trace } from "../../../src/simulator/trace.ts";
import { readTraces } from "../../../src/simulator/trace-file.ts";

/** Four texts of SmolLM2-135M-Instruct (BF16, greedy, 60 tokens each), with some of what the model says beside them. */
const FILE = fileURLToPath(new URL("./support/smollm2-4-texts.jsonl", import.meta.url));

describe("recorded texts", () => {
  let traces: Trace[];

  beforeAll(async () => {
    ({ traces } = await readTraces(FILE));
  });

  it("are greedy: the text is the model's likeliest token everywhere", () => {
    expect(traces).toHaveLength(4);
    for (const { tokens, ids, k } of traces) {
      for (let at = 0; at < tokens.length; at++) expect(ids[at * k]).toBe(tokens[at]);
    }
  });

  it("are drafted by every rule without fault, and every rule saves steps", async () => {
    const run = await runDraft(traces, { nodes: [7], topK: 8, seed: 1, peers: true, ablations: false });
    for (const { name, cells } of [run.own, ...run.peers]) {
      const [{ result }] = cells;
      expect({ name, tokens: result.tokens }).toEqual({ name, tokens: run.own.cells[0].result.tokens });
      expect({ name, saves: result.tokensPerStep > 1 }).toEqual({ name, saves: true });
    }
    expect(run.own.cells[0].result.known).toBeGreaterThan(0);
  });
});

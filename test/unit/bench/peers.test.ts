import { describe, expect, it } from "@jest/globals";
import type { ChatRequest, ChatResult } from "../../../src/bench/chat-client.ts";
import { type PeerArm, reportPeers, runPeers } from "../../../src/bench/peers.ts";
import { formatPeers } from "../../../src/bench/peers-format.ts";
import { draftFreeTypes } from "../../../src/cli/bench-peers.ts";

const arms: PeerArm[] = ["stock", "ngram-mod", "ngram-simple", "aded"].map((name) => ({
  name,
  model: name,
  args: name === "stock" ? [] : ["--spec-type", name],
}));
const prompts = Array.from({ length: 8 }, (_, i) => ({
  id: `p${i}`,
  category: i < 4 ? "code" : "chat",
  text: `prompt ${i}`,
}));
const options = { arms, prompts, maxTokens: 20, temperature: 0, seed: 1, warmup: 1 };
const MS: Record<string, number> = { stock: 10, "ngram-mod": 12, "ngram-simple": 8, aded: 5 };
const ACCEPTED: Record<string, number> = { stock: 0, "ngram-mod": 0, "ngram-simple": 4, aded: 10 };

/** Servers that take so many ms per token; ngram-simple changes one text. */
class FakeServers {
  readonly asked: string[] = [];

  async chat({ model = "", text }: ChatRequest): Promise<ChatResult> {
    this.asked.push(`${text} ${model}`);
    const changed = model === "ngram-simple" && text === "prompt 3";
    return {
      text: changed ? "other" : text,
      timings: {
        cache_n: 0,
        prompt_n: 4,
        prompt_ms: 1,
        predicted_n: changed ? 11 : 21,
        predicted_ms: MS[model] * (changed ? 10 : 20),
        draft_n: ACCEPTED[model] * 2,
        draft_n_accepted: ACCEPTED[model],
      },
    } as ChatResult;
  }
}

describe("bench peers", () => {
  it("asks every arm every prompt, prompt by prompt, in changing orders", async () => {
    const servers = new FakeServers();
    const { samples, stopped } = await runPeers(servers, options);
    expect(stopped).toBeUndefined();
    expect(samples).toHaveLength(32);
    const measured = servers.asked.slice(arms.length);
    const orders = new Set<string>();
    for (let i = 0; i < prompts.length; i++) {
      const asked = measured.slice(i * 4, i * 4 + 4);
      expect(asked.every((line) => line.startsWith(`prompt ${i} `))).toBe(true);
      expect(new Set(asked).size).toBe(4);
      orders.add(asked.map((line) => line.split(" ")[2]).join());
    }
    expect(orders.size).toBeGreaterThan(1);
  });

  it("reports ratios to the plain engine, tokens per step, same texts, and the best other arm", async () => {
    const report = reportPeers(await runPeers(new FakeServers(), options), options, "aded");
    expect(report.arms.stock).toMatchObject({
      ratio: 1,
      tokens_per_step: 1,
      acceptance: null,
      same_text: 8,
      n: 8,
    });
    expect(report.arms.aded).toMatchObject({
      ratio: 2,
      ci: [2, 2],
      tokens_per_step: 2,
      acceptance: 0.5,
      same_text: 8,
    });
    expect(report.arms["ngram-mod"].ratio).toBeCloseTo(10 / 12);
    expect(report.arms["ngram-simple"].same_text).toBe(7);
    expect(report.arms["ngram-simple"].ratio).toBeCloseTo(1.25);
    expect(report.aded_to_best?.arm).toBe("ngram-simple");
    expect(report.aded_to_best?.ratio).toBeCloseTo(1.6);
    expect(report.categories.code.aded).toBe(2);
    expect(report.complete).toBe(true);
    const table = formatPeers(report);
    expect(table).toContain("7 of 8");
    expect(table).toContain("Against the fastest other arm, ngram-simple: 1.60");
  });

  it("reports what it has when a server breaks", async () => {
    const servers = new FakeServers();
    const chat = servers.chat.bind(servers);
    servers.chat = async (request) => {
      if (request.text === "prompt 2" && request.model === "aded") throw new Error("gone");
      return chat(request);
    };
    const run = await runPeers(servers, options);
    const report = reportPeers(run, options, "aded");
    expect(report).toMatchObject({ complete: false, error: "gone", n: 2 });
    expect(formatPeers(report)).toContain("NOT COMPLETE");
  });

  it("finds the engine's speculators that need no draft model", () => {
    const help =
      "--spec-type none,draft-simple,draft-eagle3,ngram-simple,ngram-map-k,ngram-cache\n    comma-separated";
    expect(draftFreeTypes(help)).toEqual(["ngram-simple", "ngram-map-k", "ngram-cache"]);
    expect(draftFreeTypes("--spec-type [none|ngram-mod]")).toEqual(["ngram-mod"]);
    expect(draftFreeTypes("nothing of the sort")).toEqual([]);
  });
});

/** Arms, arrivals, resuming, bounds, comparisons: what `aded bench ab` does beside the plain A/B. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { type AbOptions, type AbRun, runAb } from "../../../src/bench/ab.ts";
import { readReport, resumable } from "../../../src/bench/ab-file.ts";
import { formatTable } from "../../../src/bench/ab-format.ts";
import { formatHtml } from "../../../src/bench/ab-html.ts";
import { type AbReport, reportAb } from "../../../src/bench/ab-report.ts";
import { abReportSchema } from "../../../src/bench/ab-schema.ts";
import { checkBounds, parseBound } from "../../../src/bench/bounds.ts";
import { ChatClient } from "../../../src/bench/chat-client.ts";
import { compareReports } from "../../../src/bench/compare.ts";
import { formatCompare } from "../../../src/bench/compare-format.ts";
import { draftsBetween, readDraftFigures } from "../../../src/bench/draft-figures.ts";
import { hashPrompts } from "../../../src/bench/prompts.ts";
import { planLooks } from "../../../src/bench/sequential.ts";
import { FakeServer, timings } from "./support/fake-server.ts";
import { NoisyClient } from "./support/noisy-client.ts";
import { ENVIRONMENT, OPTIONS as ONCE } from "./support/reports.ts";

const PROMPTS = "abcdefgh".split("").map((text, i) => ({ id: text, category: i < 4 ? "x" : "y", text }));
const OPTIONS: AbOptions = { ...ONCE, prompts: PROMPTS };

describe("arms", () => {
  const servers: FakeServer[] = [];
  const clients: ChatClient[] = [];
  const open = async (): Promise<{ server: FakeServer; client: ChatClient }> => {
    const server = new FakeServer();
    const client = new ChatClient(await server.listen(), { connections: 8 });
    servers.push(server);
    clients.push(client);
    return { server, client };
  };
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.close();
    for (const server of servers.splice(0)) await server.close();
  });

  it("go to two servers, each with its model and its header", async () => {
    const [a, b] = [await open(), await open()];
    const arms = { on: { drafts: "on", model: "m1" }, off: { drafts: "on", model: "m2" } } as const;
    await runAb({ on: a.client, off: b.client }, { ...OPTIONS, arms });
    const of = ({ seen }: FakeServer) => seen.map(({ arm, body }) => `${arm} ${String(body.model)}`);
    expect(new Set(of(a.server))).toEqual(new Set(["on m1"]));
    expect(new Set(of(b.server))).toEqual(new Set(["on m2"]));
    expect([a.server.seen.length, b.server.seen.length]).toEqual([8, 8]);
  });

  it("send the conversation of a log, and what sampling they were told", async () => {
    const { server, client } = await open();
    const messages = [
      { role: "system", content: "Be short." },
      { role: "user", content: "Hi" },
    ];
    await runAb(client, {
      ...OPTIONS,
      prompts: [{ id: "1", category: "log", text: "Hi", messages }],
      topP: 0.9,
      topK: 40,
      temperature: 0.8,
    });
    expect(server.seen[0].body).toMatchObject({ messages, top_p: 0.9, top_k: 40, temperature: 0.8 });
  });

  it("arrive at random with a rate, all of a block in one arm, at the same moments in both", async () => {
    const { server, client } = await open();
    const arrivals: { arm: string; at: number }[] = [];
    server.answer = ({ arm }) => {
      arrivals.push({ arm, at: performance.now() });
      return { armHeader: arm, timings: timings(4, 10) };
    };
    const { samples, busy_ms } = await runAb(client, { ...OPTIONS, rate: 200, block: 4 });
    expect(samples).toHaveLength(16);
    expect(server.mixedArms).toBe(false);
    const order = arrivals.map(({ arm }) => arm);
    for (let i = 0; i < 16; i += 4) expect(new Set(order.slice(i, i + 4)).size).toBe(1);
    expect(busy_ms?.on).toBeGreaterThan(0);
  });

  it("take whole answers without streaming", async () => {
    const { server, client } = await open();
    server.answer = ({ arm }) => ({
      armHeader: arm,
      timings: timings(4, arm === "on" ? 10 : 20),
      whole: true,
    });
    const run = await runAb(client, { ...OPTIONS, stream: false });
    expect(server.seen[0].body.stream).toBe(false);
    expect(run.samples[0]).toMatchObject({
      error: null,
      ttft_ms: null,
      text: "Hello, world",
      predicted_n: 4,
    });
    expect(reportAb(run, OPTIONS, ENVIRONMENT).overall.ratio).toBe(2);
  });

  it("measure when reasoning and when the answer itself began", async () => {
    const { server, client } = await open();
    server.answer = () => ({ reasoning: ["hm"], pieces: ["yes"] });
    const { samples } = await runAb(client, { ...OPTIONS, prompts: PROMPTS.slice(0, 1) });
    expect(samples[0].text).toBe("hmyes");
    expect(samples[0].ttfr_ms).toBe(samples[0].ttft_ms);
    expect(samples[0].ttfa_ms).toBeGreaterThanOrEqual(samples[0].ttfr_ms as number);
  });

  it("go on where an interrupted run stopped, measuring nothing twice", async () => {
    const { server, client } = await open();
    const abort = new AbortController();
    server.answer = ({ arm }) => {
      if (server.seen.length === 7) abort.abort();
      return { armHeader: arm, timings: timings(4, 10) };
    };
    const first = await runAb(client, OPTIONS, { signal: abort.signal });
    expect(first.complete).toBe(false);
    const half = first.samples.length;
    expect(half).toBeGreaterThanOrEqual(5);
    const seenBefore = server.seen.length;
    const second = await runAb(client, OPTIONS, { resume: first });
    expect(second).toMatchObject({ complete: true, samples: { length: 16 } });
    // of the pair that was cut in two both halves are measured again
    expect(server.seen.length - seenBefore).toBe(16 - (half - (half % 2)));
    expect(new Set(second.samples.map(({ id, arm }) => `${id} ${arm}`)).size).toBe(16);
  });
});

async function simulated(factor: number, pairs = 40, seed = 3): Promise<{ run: AbRun; report: AbReport }> {
  const prompts = Array.from({ length: pairs }, (_, i) => ({
    id: `p/${i}`,
    category: i % 2 === 0 ? "even" : "odd",
    text: `text ${i}`,
  }));
  const options = { ...OPTIONS, prompts };
  const run = await runAb(new NoisyClient({ seed, factor }), options);
  return { run, report: reportAb(run, options, ENVIRONMENT, { limits: { ttft: 25, e2e: 900 } }) };
}

describe("the report", () => {
  it("has the schema that lies in config/", async () => {
    const { report } = await simulated(0.5);
    expect(abReportSchema.safeParse(JSON.parse(JSON.stringify(report))).error).toBeUndefined();
    expect(abReportSchema.safeParse({ ...report, samples: [{}] }).success).toBe(false);
  });

  it("counts as goodput what kept the limits", async () => {
    const { report, run } = await simulated(0.5);
    const kept = run.samples.filter(({ arm, e2e_ms }) => arm === "off" && (e2e_ms as number) <= 900).length;
    expect(kept).toBeGreaterThan(0);
    expect(report.arms.off.goodput).toMatchObject({ kept, share: kept / 40 });
    expect(report.arms.on.goodput?.kept).toBeGreaterThan(kept);
  });

  it("says whether the arms differ, or that the machine is too noisy to tell", async () => {
    expect((await simulated(0.5)).report.noise.verdict).toBe("faster");
    expect((await simulated(1.5)).report.noise.verdict).toBe("slower");
    expect((await simulated(1, 400)).report.noise.verdict).toBe("same");
    const { noise } = (await simulated(1.01, 8)).report;
    expect(noise).toMatchObject({
      verdict: "cannot tell",
      text: expect.stringContaining("Too noisy to tell"),
    });
    expect(noise.pairs_needed).toBeGreaterThan(8);
  });

  it("plans looks and divides the error among them", () => {
    expect(planLooks(100, { width: 0.1, looks: 5 })).toMatchObject({
      looks: [20, 40, 60, 80, 100],
      level: 0.99,
    });
    expect(planLooks(12, { width: 0.1, looks: 5 })).toMatchObject({ looks: [6, 12], level: 0.975 });
  });

  it("is a page that names no other address, with everything inside", async () => {
    const { report } = await simulated(0.5);
    report.environment.command = "</script><script>alert(1)</script>";
    const html = await formatHtml(report);
    expect(html).not.toMatch(/(src|href)=/);
    expect(html).not.toContain("<script>alert");
    expect(html).toContain("Content-Security-Policy");
    expect(html.match(/<\/script>/g)).toHaveLength(2);
    expect(html.length).toBeLessThan(400_000);
  }, 120_000);
});

describe("bounds", () => {
  it("hold or fail by the figures of the report", async () => {
    const { report } = await simulated(0.5);
    const check = (text: string) => checkBounds(report, [parseBound(text)])[0];
    expect(check("overall.ratio>=1.5")).toMatchObject({ ok: true });
    expect(check("overall.ci.0 > 3")).toMatchObject({ ok: false });
    expect(check("same_text_share>=1")).toMatchObject({ ok: true, value: 1 });
    expect(check("arms.on.ttft_ms.p95<=200")).toMatchObject({ ok: true, value: 20 });
    expect(check("arms.on.nonsense<=200")).toEqual({
      bound: "arms.on.nonsense<=200",
      value: null,
      ok: false,
    });
    expect(check("__proto__.x<=1").ok).toBe(false);
  });

  it.each(["overall.ratio", "ratio=1", ">=1", "a>=b"])("%j is no bound", (text) => {
    expect(() => parseBound(text)).toThrow("is no bound");
  });
});

describe("two reports", () => {
  it("are compared prompt by prompt", async () => {
    const [a, b] = [(await simulated(0.8)).report, (await simulated(0.4, 40, 4)).report];
    const made = compareReports({ name: "a.json", report: a }, { name: "b.json", report: b });
    expect(made).toMatchObject({ shared: 40, same_text: 40, notes: [] });
    expect(made.on.ratio).toBeGreaterThan(1.8);
    expect(made.on.ratio).toBeLessThan(2.2);
    expect(made.off.ci?.[0]).toBeLessThan(1.02);
    expect(made.speedup.ci?.[0]).toBeGreaterThan(1.7);
    expect(Object.keys(made.categories)).toEqual(["even", "odd"]);
    expect(formatCompare(made)).toContain("speed-up of B / speed-up of A");
  });

  it("without a prompt in common have nothing to compare", async () => {
    const { report } = await simulated(0.8, 6);
    const other = {
      ...report,
      samples: report.samples.map((sample) => ({ ...sample, id: `other ${sample.id}` })),
    };
    const made = compareReports({ name: "a", report }, { name: "b", report: other });
    expect(made).toMatchObject({ shared: 0, on: { ratio: null }, speedup: { ratio: null } });
    expect(made.notes[0]).toContain("nothing to compare");
  });
});

describe("report files", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "aded-ab-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it("are read back, and resumed only with the same options and prompts", async () => {
    const promptsHash = hashPrompts(PROMPTS);
    const run = await runAb(new NoisyClient({ seed: 1, factor: 1 }), OPTIONS);
    const file = path.join(folder, "r.json");
    await writeFile(file, JSON.stringify(reportAb(run, OPTIONS, ENVIRONMENT, { promptsHash })));
    const report = await readReport(file);
    expect(resumable(report, { options: OPTIONS, promptsHash })?.samples).toHaveLength(16);
    expect(() => resumable(report, { options: { ...OPTIONS, maxTokens: 9 }, promptsHash })).toThrow(
      "maxTokens",
    );
    expect(() => resumable(report, { options: OPTIONS, promptsHash: "0" })).toThrow("prompts_hash");
  });

  it("are told from other files", async () => {
    const file = path.join(folder, "r.json");
    await writeFile(file, '{"overall": 1}');
    await expect(readReport(file)).rejects.toThrow("is no report of aded bench ab");
    await expect(readReport(path.join(folder, "none.json"))).rejects.toThrow("cannot read the report");
    expect(await readReport(path.join(folder, "none.json"), { missing: "none" })).toBeUndefined();
  });
});

describe("the drafter's figures", () => {
  const status = (steps: number, drafted: number[], accepted: number[]) => ({
    models: {
      m: {
        steps,
        tokens: 2 * steps,
        draft_us: { p50: 40, p99: 90 },
        link_us: { p50: 20, p99: null },
        acceptance: {
          by_depth: { drafted, accepted },
          by_source: { suffix: { drafted: steps, accepted: steps / 2 } },
        },
      },
    },
  });

  it("are what was counted between two readings", () => {
    const before = readDraftFigures(status(10, [10], [4]));
    const after = readDraftFigures(status(30, [50, 20], [14, 5]));
    expect(draftsBetween(before, after)).toMatchObject({
      steps: 20,
      by_depth: { drafted: [40, 20], accepted: [10, 5] },
      by_source: { suffix: { drafted: 20, accepted: 10 } },
      draft_us: { p50: 40 },
    });
    expect(draftsBetween(after, before)).toBeNull();
    expect(readDraftFigures({ models: { m: { steps: 1 } } })).toBeUndefined();
  });

  it("stand in the tables", async () => {
    const { run } = await simulated(0.5);
    const drafts = readDraftFigures(status(100, [100, 80], [60, 30])) ?? null;
    const text = formatTable(reportAb(run, OPTIONS, ENVIRONMENT, { drafts }));
    expect(text).toMatch(/^1 +100 +60 +60\.0 % +60\.0 %$/m);
    expect(text).toMatch(/^suffix +100 +50 +50\.0 %$/m);
  });
});

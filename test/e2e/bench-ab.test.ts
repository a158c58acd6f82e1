/** `aded bench ab` as users run it, a process of its own, against real engines; others read its JSON. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { z } from "zod";
import { defaultModelName } from "../../src/engine/models.ts";
import { aded, processesWith } from "../unit/cli/support.ts";
import { EXACT } from "./support/exact.ts";
import { PROMPTS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const TOKENS = 20;

const positive = z.number().positive();
const ratio = z.object({
  ratio: positive,
  /** Null: too few prompts to tell. */
  ci: z.tuple([positive, positive]).nullable(),
  n: z.int().positive(),
});
/** Milliseconds. */
const quantiles = z.object({ p50: positive, p95: positive, p99: positive });
const arm = z.object({
  requests: z.int().positive(),
  failed: z.literal(0),
  tokens: z.int().positive(),
  tok_s: positive,
  decode_ms: positive,
  ttft_ms: quantiles,
  itl_ms: quantiles,
  itl_chunk_ms: quantiles,
  tpot_ms: quantiles,
  e2e_ms: quantiles,
});
/** What the documents promise, with a figure wherever something can be measured. */
const reportSchema = z.object({
  overall: ratio.extend({ e2e: ratio }),
  categories: z.record(z.string(), ratio),
  same_text: z.int(),
  n: z.int().positive(),
  tokens_per_step: positive,
  complete: z.literal(true),
  arm_verified: z.literal(true),
  arms: z.object({
    on: arm.extend({
      draft_n: z.int().positive(),
      draft_n_accepted: z.int().positive(),
      acceptance: positive.max(1),
    }),
    off: arm,
  }),
  environment: z.object({
    command: z.string(),
    cpu: z.string().min(1),
    engine: z.object({ build: z.string(), model: z.string(), slots: z.int().positive() }),
    aded_status: z.object({
      models: z.record(z.string(), z.object({ link: z.literal("connected"), engine_pid: z.int() })),
    }),
  }),
  samples: z.array(z.object({ arm: z.enum(["on", "off"]), predicted_n: z.int(), error: z.null() })),
});

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-e2e-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function promptFile(count: number): string {
  const file = path.join(folder, `${count}-prompts.jsonl`);
  const lines = PROMPTS.slice(0, count).map((prompt, i) => ({
    prompt,
    category: i < 5 ? "five" : "one",
  }));
  writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  return file;
}

describe("with a server that runs", () => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack(EXACT);
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("both arms are measured, and their texts are the same", async () => {
    const json = path.join(folder, "ab.json");
    const limits = ["--max-tokens", String(TOKENS), "--warmup", "1", "--json", json];
    const { status, stdout, stderr } = await aded([
      "bench",
      "ab",
      "--url",
      stack.url,
      "--prompts",
      promptFile(6),
      ...limits,
    ]);
    expect({ status, stderr }).toMatchObject({ status: 0 });
    expect(stdout).toMatch(/^overall /m);
    const report = reportSchema.parse(JSON.parse(readFileSync(json, "utf8")));
    expect(report).toMatchObject({ n: 6, same_text: 6, arms: { on: { requests: 6 }, off: { requests: 6 } } });
    const { five, one } = report.categories;
    expect(one).toMatchObject({ n: 1, ci: null });
    for (const { ratio, ci } of [report.overall, report.overall.e2e, five]) {
      expect(ci?.[0]).toBeLessThanOrEqual(ratio);
      expect(ci?.[1]).toBeGreaterThanOrEqual(ratio);
    }
    expect(report.arms.on.tokens).toBe(report.arms.off.tokens);
    // 7 nodes are drafted at every step
    expect(report.tokens_per_step).toBeGreaterThan(1.2);
    expect(report.samples).toHaveLength(12);
  });

  it("a server that nobody runs is an error with its address", async () => {
    const { status, stdout, stderr } = await aded(["bench", "ab", "--url", "http://127.0.0.1:1"]);
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    expect(stderr).toContain("http://127.0.0.1:1");
  });
});

describe("without --url", () => {
  it("the config's server is started, measured and stopped; only JSON goes to stdout", async () => {
    const config = path.join(folder, "aded.yaml");
    writeFileSync(
      config,
      `models:\n  smol:\n    source: ${defaultModelName}\n    args: -c 2048 -np 1 -t 1\n` +
        "    drafts: { fixed_nodes: 7 }\n",
    );
    const prompts = ["--prompts", `${promptFile(6)}:2`, "--max-tokens", String(TOKENS), "--warmup", "0"];
    const { status, stdout, stderr } = await aded(["bench", "ab", "--config", config, ...prompts, "--json"]);
    expect({ status, stderr }).toMatchObject({ status: 0 });
    const report = reportSchema.parse(JSON.parse(stdout));
    expect(report).toMatchObject({ n: 2, environment: { engine: { slots: 1 } } });
    const { engine_pid: enginePid } = report.environment.aded_status.models.smol;
    expect(processesWith("llama-server").some((line) => line.startsWith(`${enginePid} `))).toBe(false);
  });
});

/** `aded bench verify` as users run it, on the real kernels. Nothing is said about times here: only whether logits are the same. */
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { z } from "zod";
import { BatchCost } from "../../src/bench/verify-tool.ts";
import { type EngineBuild, ensureEngine } from "../../src/engine/build.ts";
import { defaultModelName, ensureModel } from "../../src/engine/models.ts";
import { aded, processesWith, start } from "../unit/cli/support.ts";
import { SETUP_MS } from "./support/stack.ts";

const positive = z.number().positive();
/** What the documents promise. */
const reportSchema = z.object({
  model: z.string(),
  threads: z.literal(1),
  depth: z.literal(300),
  cost_us: z.strictObject({ 1: positive, 2: positive, 8: positive }),
  stock_cost_us: z.null(),
  ratio: z.strictObject({ 1: z.literal(1), 2: positive, 8: positive }),
  ratio_to_stock: z.null(),
  identical: z.boolean(),
  prefill_512: z.object({ own: positive, stock: z.null() }),
  weights: z.object({ bytes: positive, parameters: positive }),
  samples: z.object({ own: z.object({ 8: z.array(z.array(positive).length(3)).length(2) }) }),
  complete: z.literal(true),
});

let folder: string;
let engine: EngineBuild;
/** The default model under a path of its own, by which its processes are known. */
let model: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-e2e-"));
  engine = await ensureEngine();
  model = path.join(folder, "smol.gguf");
  symlinkSync(await ensureModel(defaultModelName), model);
}, SETUP_MS);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const verify = (...args: string[]): string[] => ["bench", "verify", "--no-stock", "--threads", "1", ...args];

describe("aded bench verify", () => {
  it("finds the logits of batches identical to those of one-by-one decoding", async () => {
    const depths = ["--depth", "300", "--depths", "10"];
    const { status, stdout, stderr } = await aded(
      verify("--model", model, "--widths", "2,8", ...depths, "--reps", "2", "--json"),
    );
    expect({ status, stderr }).toMatchObject({ status: 0 });
    const reports = JSON.parse(stdout);
    expect(reports).toHaveLength(1);
    const report = reportSchema.parse(reports[0]);
    expect(report).toMatchObject({ model: "smol", identical: true });
    const checks = [10, 300].flatMap((depth) =>
      [1, 2, 8].map((n) => ({ depth, n, identical: true, max_diff: 0 })),
    );
    expect(reports[0].checks).toEqual({ own: checks, stock: [] });
  });

  it("keeps what was measured on Ctrl-C, and ends its children", async () => {
    const json = path.join(folder, "interrupted.json");
    const running = start(verify("--model", model, "--widths", "1", "--reps", "100000", "--json", json));
    await running.printed(/ round \d+ of 100000/);
    running.child.kill("SIGINT");
    const { status, stdout } = await running.ended;
    expect(status).toBe(130);
    expect(stdout).toContain("(NOT COMPLETE)");
    const [report] = JSON.parse(readFileSync(json, "utf8"));
    expect(report).toMatchObject({ complete: false, identical: true });
    expect(processesWith(model)).toEqual([]);
  });

  it("reports a model that can't be loaded, and fails", async () => {
    const broken = path.join(folder, "broken.gguf");
    writeFileSync(broken, "no model");
    const { status, stdout, stderr } = await aded(verify("--model", broken, "--json"));
    expect([status, stderr]).toEqual([1, expect.stringContaining(`cannot load ${broken}`)]);
    expect(JSON.parse(stdout)).toMatchObject([
      { model: "broken", complete: false, cost_us: {}, identical: null },
    ]);
  });

  it("does not measure other libraries than those it is told", async () => {
    const options = { batchInvariant: true, modelPath: model, threads: 1, cells: 256, cacheType: "f16" };
    const outcome = await BatchCost.start({
      ...options,
      program: engine.batchCostPath as string,
      libraries: path.join(folder, "nothing"),
    }).then(
      (tool) => tool.close(),
      (error: Error) => error.message,
    );
    // only Linux tells what a process has loaded
    if (process.platform === "linux") expect(outcome).toMatch(/runs on \/.*libllama\.so/);
    else expect(outcome).toBeUndefined();
  });
});

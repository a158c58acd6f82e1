/** The HTML report of `aded bench ab`, opened from disk as its readers do. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { Browser } from "playwright-core";
import { type AbOptions, runAb } from "../../src/bench/ab.ts";
import { formatHtml } from "../../src/bench/ab-html.ts";
import { reportAb } from "../../src/bench/ab-report.ts";
import { readDraftFigures } from "../../src/bench/draft-figures.ts";
import { NoisyClient } from "../unit/bench/support/noisy-client.ts";
import { ENVIRONMENT } from "../unit/bench/support/reports.ts";
import { launch, overflows, seriousFindings, watchedPage } from "./support/chromium.ts";

let browser: Browser;
let folder: string;
let file: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-report-"));
  file = path.join(folder, "report.html");
  const prompts = Array.from({ length: 60 }, (_, i) => ({
    id: `p${i}`,
    category: ["writing", "coding", "math", "<b>odd</b>"][i % 4],
    text: `prompt ${i}`,
  }));
  const options: AbOptions = {
    prompts,
    maxTokens: 99,
    repeat: 1,
    concurrency: 1,
    seed: 1,
    temperature: 0,
    warmup: 0,
  };
  const run = await runAb(new NoisyClient({ seed: 5, factor: 0.6 }), options);
  for (const [i, sample] of run.samples.entries()) {
    sample.at_ms = i * 700;
    sample.gaps_ms = Array.from({ length: 30 }, (_, j) => 4 + ((i * 7 + j * 3) % 11));
    sample.gap_events = new Array<number>(30).fill(1);
    sample.ttft_ms = 20 + (i % 13);
  }
  const by_depth = { drafted: [400, 300, 200, 100], accepted: [250, 120, 60, 20] };
  const by_source = { trigram: { drafted: 600, accepted: 300 }, suffix: { drafted: 300, accepted: 150 } };
  const figures = { draft_us: { p50: 40, p99: 90 }, link_us: { p50: 20, p99: 50 } };
  const status = {
    models: { m: { steps: 400, tokens: 850, ...figures, acceptance: { by_depth, by_source } } },
  };
  const drafts = readDraftFigures(status) ?? null;
  // a long word, which must not make the page wider than a phone
  const model = `/models/${"folder".repeat(12)}/Model-135M-Instruct.Q4_1.gguf`;
  const environment = { ...ENVIRONMENT, engine: { ...ENVIRONMENT.engine, model } };
  writeFileSync(file, await formatHtml(reportAb(run, options, environment, { drafts })));
  browser = await launch();
}, 300_000);
afterAll(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

describe.each([
  ["light", { colorScheme: "light", viewport: { width: 1200, height: 900 } }],
  ["dark", { colorScheme: "dark", viewport: { width: 1200, height: 900 } }],
  ["on a phone", { colorScheme: "light", viewport: { width: 360, height: 740 } }],
] as const)("%s", (name, options) => {
  it("is complete in itself, draws its plots, and is accessible", async () => {
    const { page, context, complaints, requests } = await watchedPage(browser, options);
    await page.goto(pathToFileURL(file).href);
    await page.waitForSelector("#time canvas");
    expect(await page.locator("h1").textContent()).toBe("A/B of Model-135M-Instruct.Q4_1");
    expect(await page.locator("canvas").count()).toBe(4);
    // four categories; over all: the ratio, the median of the pairs, end to end, to the first token
    expect(await page.locator("svg.forest circle").count()).toBe(8);
    // a curve has another colour than an empty canvas
    const painted = await page.evaluate(`[...document.querySelectorAll("canvas")].every((canvas) => {
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(new Uint32Array(data.buffer)).size > 3;
    })`);
    expect(painted).toBe(true);
    expect(await page.locator("main b").count()).toBe(0);
    expect(await overflows(page)).toBe(false);
    expect(complaints).toEqual([]);
    expect(requests).toEqual([pathToFileURL(file).href]);
    expect(await seriousFindings(page)).toEqual([]);
    const shots = process.env.ADED_SCREENSHOTS;
    if (shots) await page.screenshot({ path: path.join(shots, `report ${name}.png`), fullPage: true });
    await context.close();
  }, 300_000);
});

/** The dashboard in a browser, in front of the real engine and the real drafter. */
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { Browser } from "playwright-core";
import { parseConfig } from "../../src/config.ts";
import { defaultModelName } from "../../src/engine/models.ts";
import { silentLog } from "../../src/log.ts";
import { type RunningServer, startServer } from "../../src/main.ts";
import { launch, overflows, seriousFindings, until, watchedPage } from "./support/chromium.ts";

const SETUP_MS = 30 * 60_000;
const KEY = "a key for the test";

const CONFIG = `
api_keys: ["${KEY}"]
ab: { share: 0.5 }
models:
  smol:
    source: ${defaultModelName}
    args: -c 2048 -np 2 -kvu -t 1 --draft-timeout-us 1000000
    drafts: { fixed_nodes: 7 }
`;

let server: RunningServer;
let browser: Browser;

async function ask(text: string): Promise<void> {
  const response = await fetch(`${server.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${KEY}` },
    body: JSON.stringify({ messages: [{ role: "user", content: text }], max_tokens: 12, temperature: 0 }),
  });
  expect(response.status).toBe(200);
  await response.text();
}

beforeAll(async () => {
  const config = { ...parseConfig(CONFIG, { env: {} }), listen: { host: "127.0.0.1", port: 0 } };
  server = await startServer(config, { log: silentLog() });
  await server.ready;
  browser = await launch();
  for (let i = 0; i < 6; i++) await ask(`Count to ${i}.`);
}, SETUP_MS);
afterAll(async () => {
  await browser?.close();
  await server?.close({ drainMs: 0, graceMs: 1000 });
});

describe.each([
  ["light", { colorScheme: "light", viewport: { width: 1200, height: 900 } }],
  ["dark", { colorScheme: "dark", viewport: { width: 1200, height: 900 } }],
  ["on a phone", { colorScheme: "light", viewport: { width: 360, height: 740 }, hasTouch: true }],
] as const)("%s", (name, options) => {
  it("asks for the key, follows the figures, and shows the draft trees of a request", async () => {
    const { page, context, complaints, requests } = await watchedPage(browser, options);
    await page.goto(`${server.url}/aded/`);
    await page.getByLabel("API key").fill(KEY);
    await page.keyboard.press("Enter");
    await page.getByRole("rowheader", { name: "smol", exact: true }).waitFor();
    // the console names the 401 that made it ask
    expect(complaints.every((text) => text.includes("401"))).toBe(true);
    complaints.length = 0;
    expect(await page.getByRole("cell", { name: "ready" }).count()).toBe(1);
    const spoken = page.locator("section", { hasText: "Tokens per step" }).locator(".soft").first();
    const before = await spoken.textContent();
    await page.getByLabel("Prompt").fill("Write the numbers from 1 to 12, separated by commas.");
    await page.getByRole("button", { name: "Try it" }).focus();
    await page.keyboard.press("Enter");
    await page.locator(".trees > li").nth(3).waitFor();
    await until(
      page,
      "document.querySelector('form:not([hidden]) button[type=submit]:not([disabled])') !== null && document.getElementById('answer').textContent.length > 10",
    );
    expect(await page.locator(".trees .token").count()).toBeGreaterThan(20);
    expect(await page.locator(".trees .kept").count()).toBeGreaterThan(3);
    await until(
      page,
      `document.body.textContent.includes("tokens in") && !document.body.textContent.includes(${JSON.stringify(before)})`,
    );
    await until(page, "document.querySelectorAll('canvas').length === 3");
    expect(await page.getByRole("rowheader", { name: "suffix" }).count()).toBe(1);
    expect(await page.getByText("% of the requests run without drafts").count()).toBe(1);
    expect(await overflows(page)).toBe(false);
    expect(complaints).toEqual([]);
    expect(requests.filter((url) => !url.startsWith(server.url) && !url.startsWith("data:"))).toEqual([]);
    expect(await seriousFindings(page)).toEqual([]);
    const shots = process.env.ADED_SCREENSHOTS;
    if (shots) await page.screenshot({ path: path.join(shots, `dashboard ${name}.png`), fullPage: true });
    await context.close();
  }, 600_000);
});

describe("what the page may do", () => {
  it("is told by a strict policy", async () => {
    const page = await fetch(`${server.url}/aded/`);
    const policy = page.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("unsafe");
    expect(await page.text()).not.toMatch(/https?:\/\//);
  });

  it("shows figures, steps and log to nobody without a key", async () => {
    for (const what of ["status", "steps?model=smol", "log", "metrics"]) {
      expect((await fetch(`${server.url}/aded/${what}`)).status).toBe(401);
    }
  });
});

describe("with models that take turns", () => {
  const TWO = `
swap: { min_residency_seconds: 0 }
models:
${["first", "second"]
  .map(
    (name) => `  ${name}:
    source: ${defaultModelName}
    args: -c 1024 -np 1 -t 1
`,
  )
  .join("")}`;
  let swapping: RunningServer;

  beforeAll(async () => {
    const config = { ...parseConfig(TWO, { env: {} }), listen: { host: "127.0.0.1", port: 0 } };
    swapping = await startServer(config, { log: silentLog() });
    await swapping.ready;
  }, SETUP_MS);
  afterAll(() => swapping?.close({ drainMs: 0, graceMs: 1000 }));

  it("loads and unloads them at a click", async () => {
    const { page, context, complaints } = await watchedPage(browser);
    await page.goto(`${swapping.url}/aded/`);
    const state = (name: string) => page.getByRole("row", { name }).getByRole("cell").first();
    const ready = (name: string) => state(name).filter({ hasText: /^ready$/ });
    const notReady = (name: string) => state(name).filter({ hasNotText: /^ready$/ });

    await page.getByRole("button", { name: "Load second", exact: true }).click();
    await ready("second").waitFor();
    await notReady("first").waitFor();
    await page.getByRole("button", { name: "Unload second", exact: true }).click();
    await notReady("second").waitFor();
    await page.getByRole("button", { name: "Load first", exact: true }).click();
    await ready("first").waitFor();
    expect(complaints).toEqual([]);
    await context.close();
  }, 300_000);
});

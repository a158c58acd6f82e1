/** A page in the system's Chromium, everything it says and asks for written down, and axe-core's opinion of it. */
import { accessSync, constants } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type Page,
} from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const ARGS = [
  "--no-sandbox",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-default-apps",
  "--disable-sync",
  "--no-first-run",
  "--disable-gpu",
  "--disable-dev-shm-usage",
];

export interface Watched {
  page: Page;
  context: BrowserContext;
  /** Errors and warnings of the console, exceptions, refusals by the policy. */
  complaints: string[];
  /** Addresses that were asked for. */
  requests: string[];
}

function executable(): string {
  for (const folder of (process.env.PATH ?? "").split(path.delimiter)) {
    for (const name of NAMES) {
      const file = path.join(folder, name);
      try {
        accessSync(file, constants.X_OK);
        return file;
      } catch {
        // The next one.
      }
    }
  }
  throw new Error("the pages are tested in Chromium, which is not installed: apt-get install chromium");
}

export async function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: executable(), args: ARGS, timeout: 180_000 });
}

export async function watchedPage(browser: Browser, options: BrowserContextOptions = {}): Promise<Watched> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const complaints: string[] = [];
  const requests: string[] = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => requests.push(request.url()));
  return { page, context, complaints, requests };
}

/** Findings of axe-core that are serious or worse, by rule. */
export async function seriousFindings(page: Page): Promise<string[]> {
  const source = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
  const session = await page.context().newCDPSession(page);
  // past the page's policy, which lets nothing in
  await session.send("Page.setBypassCSP", { enabled: true });
  const { readFile } = await import("node:fs/promises");
  await page.evaluate(await readFile(source, "utf8"));
  const found = await page.evaluate(async () => {
    const axe = (globalThis as unknown as { axe: { run(): Promise<{ violations: AxeViolation[] }> } }).axe;
    const { violations } = await axe.run();
    return violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(" ")}`);
  });
  await session.detach();
  return found;
}

interface AxeViolation {
  id: string;
  help: string;
  impact: string;
  nodes: { html: string }[];
}

/** Does the page scroll sideways? It must not, on a phone. */
export async function overflows(page: Page): Promise<boolean> {
  return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1");
}

/** Waits until an expression holds in the page. (Playwright's own way wants `eval`, which the page's policy forbids.) */
export async function until(page: Page, expression: string): Promise<void> {
  for (const deadline = performance.now() + 120_000; performance.now() < deadline; ) {
    if ((await page.evaluate(expression)) === true) return;
    await page.waitForTimeout(100);
  }
  throw new Error(`did not come true within two minutes: ${expression}`);
}

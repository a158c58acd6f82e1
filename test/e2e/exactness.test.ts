/** What the engine finds out about its batches at start, and what it makes of batches that are not exact. */
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import { readMeasures } from "../../src/engine/measures.ts";
import { homePath } from "../../src/home.ts";
import type { ProxyStatus } from "../../src/proxy/status.ts";
import { chat } from "./support/generate.ts";
import { PROMPTS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const TOKENS = 40;

let stack: Stack | undefined;
afterEach(async () => {
  await stack?.stop();
  stack = undefined;
});

async function started(args: string[], drafting = true): Promise<Stack> {
  stack = await startStack({ args, drafting });
  return stack;
}

/** How the engine came by its measures, from its log. */
function measured(running: Stack): string | undefined {
  return /(known|measured) in [\d.]+ s/.exec(running.engineLog())?.[1];
}

async function sameText(
  running: Stack,
  prompts = PROMPTS.slice(0, 4),
): Promise<{ drafted: number; accepted: number }> {
  let drafted = 0;
  let accepted = 0;
  for (const prompt of prompts) {
    const off = await chat(running.proxy, prompt, { temperature: 0, max_tokens: TOKENS }, "off");
    const on = await chat(running.proxy, prompt, { temperature: 0, max_tokens: TOKENS }, "on");
    expect(on.ids).toEqual(off.ids);
    drafted += on.drafted ?? 0;
    accepted += on.accepted ?? 0;
  }
  return { drafted, accepted };
}

describe("what an engine measures at start", () => {
  it(
    "is shown, kept for the next start, and made anew when the file is damaged",
    async () => {
      const first = await started(["-c", "1024"]);
      const status = await first.proxy.get<ProxyStatus>("/aded/status");
      const { exactness, cost_us } = Object.values(status.models)[0];
      expect(exactness?.tested.length).toBeGreaterThan(0);
      expect(exactness?.exact).toEqual(exactness?.tested);
      expect(exactness?.near_tie).toBe(0);
      expect(Object.keys(cost_us)).toContain("1");
      expect(readMeasures().length).toBeGreaterThan(0);
      await first.stop();

      // no timing is asserted: an entry is also measured again when the machine has become much faster meanwhile
      const second = await started(["-c", "1024"]);
      expect(["known", "measured"]).toContain(measured(second));
      await second.stop();

      const folder = homePath("measures");
      const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
      for (const name of files) writeFileSync(path.join(folder, name), '[{"key": 1,');
      expect(readMeasures()).toEqual([]);
      const third = await started(["-c", "1024"]);
      expect(measured(third)).toBe("measured");
      expect(third.engineLog()).toMatch(/is damaged \(.*\), measuring again/);
      expect(readMeasures()).toHaveLength(1);
    },
    SETUP_MS,
  );

  it(
    "is done without a file too",
    async () => {
      rmSync(homePath("measures"), { recursive: true, force: true });
      const running = await started(["--draft-measures", ""]);
      expect(measured(running)).toBe("measured");
      expect(existsSync(homePath("measures")) ? readMeasures() : []).toEqual([]);
    },
    SETUP_MS,
  );

  it(
    "batches are compared beyond 512 cells too: there, stock attention shares a single token out among threads",
    async () => {
      const running = await started(["--no-batch-invariant", "-t", "2"]);
      const status = await running.proxy.get<ProxyStatus>("/aded/status");
      const { exactness } = Object.values(status.models)[0];
      expect(exactness?.tested.length).toBeGreaterThan(0);
      expect(exactness?.exact).toEqual([]);
      expect(exactness?.near_tie).toBeGreaterThan(0);
    },
    SETUP_MS,
  );
});

describe("batches that are not trusted", () => {
  it(
    "near-tie rule: with a margin above every difference each token is decoded alone, the text is the same, no draft is accepted",
    async () => {
      const running = await started(["--draft-near-tie", "100"]);
      const { drafted, accepted } = await sameText(running, PROMPTS.slice(0, 2));
      expect(drafted).toBeGreaterThan(0);
      expect(accepted).toBe(0);
    },
    SETUP_MS,
  );

  it(
    "near-tie rule: with a margin that some positions fall below, the text is the same and drafts are accepted",
    async () => {
      const { accepted } = await sameText(await started(["--draft-near-tie", "1"]));
      expect(accepted).toBeGreaterThan(0);
    },
    SETUP_MS,
  );

  it(
    "one width for all steps: the text is the same with kernels whose results depend on it, and plain steps have it too",
    async () => {
      const running = await started(["--no-batch-invariant", "--draft-width", "8"]);
      const { accepted } = await sameText(running);
      expect(accepted).toBeGreaterThan(0);
    },
    SETUP_MS,
  );

  it(
    "a value that means nothing ends the start",
    async () => {
      await expect(started(["--draft-near-tie", "often"])).rejects.toThrow(/before it was ready/);
      await expect(started(["--draft-width", "1"])).rejects.toThrow(/--draft-width must be 0, or 2 to 64/);
    },
    SETUP_MS,
  );
});

/** `aded corpus grow` against the real engine: what a kill costs, who goes first, and what serving makes of the corpus. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import type { CorpusDiff } from "../../src/corpus/diff.ts";
import type { GrowReport } from "../../src/corpus/grow.ts";
import type { GrowState } from "../../src/corpus/grow-state.ts";
import { defaultModelName, ensureModel } from "../../src/engine/models.ts";
import { aded, type RunningCommand, start } from "../unit/cli/support.ts";
import { chat } from "./support/generate.ts";
import { PROMPTS } from "./support/prompts.ts";
import { smallDisk } from "./support/small-disk.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const MAX_TOKENS = 96;
/** So many answers that a kill, seen late by whoever counts tokens, still comes before the last of them. */
const ASKED = ["", "Briefly: ", "In a friendly tone: "].flatMap((how) =>
  PROMPTS.map((prompt) => how + prompt),
);
/** Asked only after growing: one of the kind of those that the corpus knows. */
const UNSEEN = "Write a Python function that returns the n-th prime number, and then explain it.";
const POLL_MS = 20;

let folder: string;
let modelPath: string;
let stack: Stack | undefined;
let growing: RunningCommand | undefined;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-grow-"));
  modelPath = await ensureModel(defaultModelName);
  const lines = ASKED.map((prompt) => JSON.stringify({ prompt }));
  writeFileSync(at("prompts.jsonl"), `${lines.join("\n")}\n`);
}, SETUP_MS);
afterEach(async () => {
  growing?.child.kill("SIGKILL");
  await growing?.ended;
  growing = undefined;
});
afterAll(async () => {
  await stack?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const at = (name: string): string => path.join(folder, name);

/** One slot: who comes second waits for the first. */
async function served(): Promise<Stack> {
  stack ??= await startStack({ args: ["-np", "1"] });
  return stack;
}

function arguments_(url: string, out: string, ...more: string[]): string[] {
  const how = ["--url", url, "--out", out, "--model-file", modelPath, "--json", ...more];
  return ["corpus", "grow", ...how, "--", at("prompts.jsonl")];
}

async function grow(out: string, ...more: string[]): Promise<GrowReport> {
  const { url } = await served();
  const done = await aded(arguments_(url, at(out), ...more));
  if (done.status !== 0) throw new Error(done.stderr);
  return JSON.parse(done.stdout) as GrowReport;
}

const ALWAYS = ["--always", "--max-tokens", String(MAX_TOKENS)];

/** Resolves when the engine has generated that many more tokens. */
async function generated(tokens: number): Promise<void> {
  const { drafting } = await served();
  const count = (): number => drafting?.snapshot().tokens ?? 0;
  const before = count();
  while (count() < before + tokens) await delay(POLL_MS);
}

describe("aded corpus grow", () => {
  it("comes to the same counts when it is interrupted, and killed, and goes on", async () => {
    const whole = await grow("whole.parquet", ...ALWAYS);
    expect(whole).toMatchObject({ answers: ASKED.length, complete: true, resumed: false });

    const { url } = await served();
    growing = start(arguments_(url, at("pieces.parquet"), ...ALWAYS));
    await generated(MAX_TOKENS * 1.5);
    growing.child.kill("SIGINT");
    expect((await growing.ended).status).toBe(130);
    const state = JSON.parse(readFileSync(at("pieces.parquet.grow/state.json"), "utf8")) as GrowState;
    expect(state.tokens).toBeGreaterThan(0);
    expect(state.tokens).toBeLessThan(whole.tokens);

    growing = start(arguments_(url, at("pieces.parquet"), ...ALWAYS));
    await generated(MAX_TOKENS);
    growing.child.kill("SIGKILL");
    await growing.ended;
    expect(existsSync(at("pieces.parquet"))).toBe(false);

    const pieces = await grow("pieces.parquet", ...ALWAYS);
    expect(pieces).toMatchObject({
      answers: whole.answers,
      tokens: whole.tokens,
      complete: true,
      resumed: true,
    });
    expect(readdirSync(folder).filter((name) => name.includes("pieces"))).toEqual(["pieces.parquet"]);
    const diff = await aded(["corpus", "diff", at("whole.parquet"), at("pieces.parquet"), "--json"]);
    // where it went on, a probability comes of a prompt's pass instead of a step's, whose last bits may differ
    const { distance, same } = JSON.parse(diff.stdout) as CorpusDiff;
    expect(distance).toBeLessThan(1e-4);
    expect(same).toBeGreaterThan(0.99 * whole.rows);
  });

  it("makes room for whoever comes, and goes on with its answer afterwards", async () => {
    const { proxy, url } = await served();
    const long = ["--max-tokens", "400", "--tokens", "500"];
    growing = start(arguments_(url, at("polite.parquet"), ...long));
    await generated(20);
    // of the one slot the growing answer has 400 tokens to go
    const answer = await chat(proxy, "Name three colours.", { max_tokens: 8, temperature: 0 }, "on");
    expect(answer.text).not.toBe("");
    growing.child.kill("SIGINT");
    await growing.ended;
    const { answers, tokens, partial } = JSON.parse(
      readFileSync(at("polite.parquet.grow/state.json"), "utf8"),
    ) as GrowState;
    expect({ answers, open: partial?.index }).toEqual({ answers: 0, open: 0 });
    expect(tokens).toBeLessThan(400);

    const rest = await grow("polite.parquet", ...long);
    expect(rest).toMatchObject({ resumed: true, tokens: 500 });
  });

  it("says so when the disk is full, and leaves no corpus", async () => {
    const { url } = await served();
    const disk = smallDisk(at("disk"), 16);
    const out = path.join(disk.folder, "full.parquet");
    try {
      const done = await disk.aded(arguments_(url, out, ...ALWAYS));
      expect(existsSync(out)).toBe(false);
      if (disk.mounted)
        expect(done).toMatchObject({ status: 1, stderr: expect.stringContaining("the disk is full") });
      else expect(done.status).not.toBe(0);
    } finally {
      disk.remove();
    }
  });
});

describe("serving with a grown corpus", () => {
  it("drafts from it at the first request, and the text stays what it was", async () => {
    const how = { max_tokens: 48, temperature: 0 };
    await stack?.stop();
    stack = await startStack({ corpora: [at("whole.parquet")] });
    const { drafting, proxy } = stack;
    while (drafting?.snapshot().corpora?.state === "reading") await delay(POLL_MS);
    expect(drafting?.snapshot().corpora).toMatchObject({ state: "used", rows_left_out: 0 });
    expect(drafting?.snapshot().corpora?.rows).toBeGreaterThan(50);

    const drafted = await chat(proxy, UNSEEN, how, "on");
    const plain = await chat(proxy, UNSEEN, how, "off");
    expect(drafted.text).toBe(plain.text);
    const { by_source: bySource } = drafting?.snapshot().acceptance ?? {};
    expect(bySource?.corpus_trigram.accepted).toBeGreaterThan(0);
  });
});

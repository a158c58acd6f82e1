import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { DEFAULT_PROMPTS } from "../../../src/bench/default-prompts.ts";
import { loadPrompts } from "../../../src/bench/prompts.ts";
import { AdedError } from "../../../src/errors.ts";

describe("loadPrompts", () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "aded-prompts-"));
  });

  afterEach(() => rm(folder, { recursive: true }));

  async function file(name: string, ...lines: (object | string)[]): Promise<string> {
    const path = join(folder, name);
    const text = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line)));
    await writeFile(path, text.join("\n"));
    return path;
  }

  const mtBench = (n: number) =>
    Array.from({ length: n }, (_, i) => ({
      question_id: 81 + i,
      category: `c${Math.floor(i / 2)}`,
      turns: [`first ${i}`, "second"],
    }));

  it("takes the first turns of MT-Bench", async () => {
    const path = await file("mt.jsonl", ...mtBench(2), "");
    expect(await loadPrompts([path])).toEqual([
      { id: "mt-bench/81", category: "c0", text: "first 0" },
      { id: "mt-bench/82", category: "c0", text: "first 1" },
    ]);
  });

  it("asks for HumanEval's functions with an instruction", async () => {
    const path = await file("he.jsonl", { task_id: "HumanEval/0", prompt: "def f():\n    '''doc'''\n" });
    const [prompt] = await loadPrompts([path]);
    expect(prompt).toMatchObject({ id: "HumanEval/0", category: "humaneval" });
    expect(prompt.text).toMatch(
      /^Complete the following Python function\..*\n\n```python\ndef f\(\):\n {4}'''doc'''\n```$/s,
    );
  });

  it("takes plain prompts and makes their ids distinct", async () => {
    const path = await file(
      "p.jsonl",
      { prompt: "a" },
      { prompt: "b", category: "x", id: 1 },
      { prompt: "c", id: 1 },
    );
    expect(await loadPrompts([path])).toEqual([
      { id: "p.jsonl:1", category: "default", text: "a" },
      { id: "1", category: "x", text: "b" },
      { id: "1#2", category: "default", text: "c" },
    ]);
  });

  it("spreads a limit over each file, and takes FILE:N literally", async () => {
    const first = await file("a.jsonl", ...mtBench(8));
    const second = await file("b.jsonl", { prompt: "x" }, { prompt: "y" }, { prompt: "z" });
    const limited = await loadPrompts([first, `${second}:1`], { limit: 4 });
    expect(limited.map((prompt) => prompt.text)).toEqual(["first 0", "first 2", "first 4", "first 6", "x"]);
  });

  it.each([
    ["a file that is not there", "none.jsonl", undefined, /cannot read the prompts .*none\.jsonl/],
    ["an empty file", "empty.jsonl", "\n\n", /no prompts in/],
    ["a line that is not JSON", "bad.jsonl", '{"prompt":"a"}\nhello', /bad\.jsonl:2 is not JSON/],
    ["a line without a prompt", "odd.jsonl", '{"question":"a"}', /odd\.jsonl:1 holds no prompt/],
    ["an empty prompt", "blank.jsonl", '{"prompt":"  "}', /blank\.jsonl:1 holds no prompt/],
  ])("names %s", async (_name, name, content, message) => {
    const path = join(folder, name);
    if (content !== undefined) await writeFile(path, content);
    const error: unknown = await loadPrompts([path]).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(AdedError);
    expect(error).toMatchObject({ code: "ADED_BENCH", hint: expect.stringMatching(/./) });
    expect((error as AdedError).message).toMatch(message);
  });
});

describe("DEFAULT_PROMPTS", () => {
  it("have distinct ids and several categories", () => {
    expect(new Set(DEFAULT_PROMPTS.map((prompt) => prompt.id)).size).toBe(DEFAULT_PROMPTS.length);
    expect(new Set(DEFAULT_PROMPTS.map((prompt) => prompt.category)).size).toBeGreaterThan(3);
  });
});

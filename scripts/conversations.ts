/**
 * Conversations in the formats of ShareGPT and UltraChat, from what a model answered to MT-Bench (`aded eval mt-bench`) and HumanEval (`aded eval humaneval`), with the
 * odd records that the originals have: empty values, missing fields, other languages, emoji, a message of a megabyte.
 *
 *     npx tsx scripts/conversations.ts --out DIR [--questions mt_bench.jsonl --answers model_answer/M.jsonl] [--tasks humaneval.jsonl --samples samples.jsonl] [--half odd|even]
 *
 * Writes DIR/sharegpt.json and DIR/ultrachat.jsonl. `--half` takes every second line of the questions and tasks (odd: 1, 3, 5 …).
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { ODD } from "../test/e2e/support/corpus-texts.ts";

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    questions: { type: "string" },
    answers: { type: "string" },
    tasks: { type: "string" },
    samples: { type: "string" },
    half: { type: "string" },
  },
});
if (values.out === undefined) throw new Error("--out DIR is missing");

function lines<T>(file: string | undefined): T[] {
  if (file === undefined) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => JSON.parse(line) as T);
}

function halfOf<T>(all: readonly T[]): T[] {
  if (values.half === undefined) return [...all];
  return all.filter((_, i) => (i % 2 === 0) === (values.half === "odd"));
}

const answers = new Map(
  lines<{ question_id: number; choices: { turns: string[] }[] }>(values.answers).map((answer) => [
    answer.question_id,
    answer.choices[0].turns,
  ]),
);
const samples = new Map(
  lines<{ task_id: string; completion: string }>(values.samples).map((each) => [
    each.task_id,
    each.completion,
  ]),
);
/** Question, answer, question, … */
const talks = [
  ...halfOf(lines<{ question_id: number; turns: string[] }>(values.questions)).map((question) =>
    question.turns.flatMap((turn, i) => [turn, answers.get(question.question_id)?.[i] ?? ""]),
  ),
  ...halfOf(lines<{ task_id: string; prompt: string }>(values.tasks)).map((task) => [
    task.prompt,
    samples.get(task.task_id) ?? "",
  ]),
];
const words = talks.length;
for (const odd of ODD) talks.push([odd, odd]);
talks.push(["Repeat this.", "again and ".repeat(100_000)]);

const sharegpt = [
  ...talks.map((turns, i) => ({
    id: `talk_${i}`,
    conversations: turns.map((value, t) => ({ from: t % 2 === 0 ? "human" : "gpt", value })),
  })),
  { id: "nothing said", conversations: [] },
  { id: "no value", conversations: [{ from: "human" }] },
  { id: "no conversation" },
];
const ultrachat = [
  ...talks.map((data, i) => JSON.stringify({ id: String(i), data })),
  JSON.stringify({ id: "nothing said", data: [] }),
  JSON.stringify({ id: "no data" }),
  '{"id": "broken off", "data": ["When',
];
mkdirSync(values.out, { recursive: true });
writeFileSync(path.join(values.out, "sharegpt.json"), JSON.stringify(sharegpt, null, 1));
writeFileSync(path.join(values.out, "ultrachat.jsonl"), `${ultrachat.join("\n")}\n`);
console.log(`${words} conversations, ${sharegpt.length - words} odd records`);

/**
 * HumanEval (arXiv 2107.03374): 164 functions to be completed, answered in both arms; pass@k by the unbiased estimator. Samples are
 * written in the original's format ({"task_id", "completion"}), so that the original checker can read them.
 */
import type { AbSample } from "../bench/ab-sample.ts";
import type { ChatClient } from "../bench/chat-client.ts";
import { AdedError } from "../errors.ts";
import { armOrder, ask } from "./arms.ts";
import { type Journal, readJsonLines } from "./journal.ts";

export interface HumanEvalTask {
  task_id: string;
  /** Head of a function, with its documentation. */
  prompt: string;
  entry_point: string;
  /** Defines check(candidate). */
  test: string;
}

export interface CodeEntry {
  task_id: string;
  /** From 0. */
  index: number;
  samples: AbSample[];
}

/** A line of the original's samples file. */
export interface CodeSample {
  task_id: string;
  completion: string;
}

const INSTRUCTION =
  "Complete the following Python function. Answer with the whole function in one code block, without explanations.";

/** @throws AdedError ADED_EVAL when a line is no task */
export async function loadTasks(path: string): Promise<HumanEvalTask[]> {
  const lines = await readJsonLines(path);
  return lines.map((line, i) => {
    const { task_id, prompt, entry_point, test } = line;
    for (const value of [task_id, prompt, entry_point, test]) {
      if (typeof value === "string" && value !== "") continue;
      throw new AdedError("ADED_EVAL", `${path}:${i + 1} is no task of HumanEval`, {
        hint: 'Each line has "task_id", "prompt", "entry_point" and "test", as HumanEval.jsonl.',
      });
    }
    return { task_id, prompt, entry_point, test } as HumanEvalTask;
  });
}

export interface CodeRunOptions {
  tasks: readonly HumanEvalTask[];
  /** Samples per task. */
  samples: number;
  maxTokens: number;
  seed: number;
  temperature: number;
  topP?: number;
  model?: string;
  signal?: AbortSignal;
  onProgress?(done: number, total: number): void;
}

/** Answers what the journal does not hold yet. */
export async function runHumanEval(
  client: ChatClient,
  journal: Journal<CodeEntry>,
  options: CodeRunOptions,
): Promise<void> {
  const { tasks, samples: perTask, signal, onProgress } = options;
  const done = new Set(journal.entries.map(({ task_id, index }) => `${task_id} ${index}`));
  const total = tasks.length * perTask;
  const startedAt = performance.now();
  onProgress?.(done.size, total);
  for (let index = 0; index < perTask; index++) {
    for (const { task_id, prompt } of tasks) {
      if (done.has(`${task_id} ${index}`)) continue;
      const order = armOrder(`${task_id} ${index}`, options.seed);
      const content = `${INSTRUCTION}\n\n\`\`\`python\n${prompt.trimEnd()}\n\`\`\``;
      const samples: AbSample[] = [];
      for (const arm of order) {
        const asked = {
          id: task_id,
          group: task_id,
          category: "humaneval",
          messages: [{ role: "user", content }],
          temperature: options.temperature,
          topP: options.topP,
          seed: options.seed + index,
          maxTokens: options.maxTokens,
          model: options.model,
          repeat: index,
        };
        samples.push(await ask(client, asked, { arm, first: arm === order[0], startedAt, signal }));
      }
      await journal.append({ task_id, index, samples });
      onProgress?.(journal.entries.length, total);
    }
  }
}

/**
 * What a chat answer adds to the prompt. A whole function follows the prompt's own head, which is then a function of its
 * documentation alone that the later definition replaces; anything else is taken as the function's body.
 */
export function completionOf({ prompt, entry_point }: HumanEvalTask, answer: string): string {
  const code = codeIn(answer);
  if (new RegExp(`^\\s*(async\\s+)?def\\s+${entry_point}\\b`, "m").test(code)) return `\n\n${code}\n`;
  const lines = code.split("\n");
  const indented =
    lines.some((line) => line.trim() !== "") && lines.every((line) => line === "" || /^\s/.test(line));
  const body = indented ? lines : lines.map((line) => (line === "" ? line : `    ${line}`));
  return `${prompt.endsWith("\n") ? "" : "\n"}${body.join("\n")}\n`;
}

/** The first code block, or all of the answer; without the blank lines and the line ends of other systems. */
function codeIn(answer: string): string {
  const block = /```[^\n]*\n([\s\S]*?)(?:```|$)/.exec(answer);
  return (block === null ? answer : block[1]).replaceAll("\r\n", "\n").replace(/^\n+/, "").trimEnd();
}

/** The program that decides: the original's order of prompt, completion, tests and call. */
export function programOf({ prompt, test, entry_point }: HumanEvalTask, completion: string): string {
  return `${prompt}${completion}\n${test}\ncheck(${entry_point})`;
}

/**
 * pass@k = 1 - C(n - c, k) / C(n, k), computed as a product that does not overflow.
 * Source: arXiv 2107.03374, equation 1.
 * @param n samples of a task
 * @param c how many of them passed
 */
export function passAtK(n: number, c: number, k: number): number {
  if (n - c < k) return 1;
  let fail = 1;
  for (let i = n - c + 1; i <= n; i++) fail *= 1 - k / i;
  return 1 - fail;
}

/** Mean over the tasks; null where a task has fewer than k samples. */
export function meanPassAtK(results: ReadonlyMap<string, readonly boolean[]>, k: number): number | null {
  let sum = 0;
  for (const passed of results.values()) {
    if (passed.length < k) return null;
    sum += passAtK(passed.length, passed.filter(Boolean).length, k);
  }
  return results.size === 0 ? null : sum / results.size;
}

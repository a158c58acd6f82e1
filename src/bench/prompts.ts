/**
 * Prompts for benchmarks, from JSONL files: MT-Bench (FastChat's question.jsonl, first turns), HumanEval, and plain
 * `{"prompt", "category"?, "id"?}`. The format is told by the keys of each line.
 */
import { readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import { AdedError, messageOf } from "../errors.ts";

export interface BenchPrompt {
  /** Unique within a run. */
  id: string;
  category: string;
  /** What the user says. */
  text: string;
}

const FORMATS =
  'Each line must be a JSON object: MT-Bench {"question_id", "category", "turns"}, HumanEval {"task_id", "prompt"}, ' +
  'or plain {"prompt", "category"}.';

/** HumanEval's prompt is the head of a function; a chat model gets it with the usual instruction. */
const HUMANEVAL_INSTRUCTION =
  "Complete the following Python function. Answer with the whole function in one code block, without explanations.";

/**
 * @param files paths; `path:N` takes N prompts of that file
 * @param limit most prompts of each file that names no number of its own; spread evenly over the file, so that every
 *   category of a file that is sorted by category has its share
 * @throws AdedError ADED_BENCH for a file that cannot be read, a line that is no prompt, or no prompts at all
 */
export async function loadPrompts(
  files: readonly string[],
  { limit }: { limit?: number } = {},
): Promise<BenchPrompt[]> {
  const prompts: BenchPrompt[] = [];
  for (const file of files) {
    const { path, count } = await splitCount(file);
    prompts.push(...spread(await loadFile(path), count ?? limit));
  }
  if (prompts.length === 0) {
    throw new AdedError("ADED_BENCH", `no prompts in ${files.join(", ")}`, { hint: FORMATS });
  }
  return distinctIds(prompts);
}

/** `path:N`, unless a file of that very name exists. */
async function splitCount(file: string): Promise<{ path: string; count?: number }> {
  const match = /^(.+):(\d+)$/.exec(file);
  if (match === null) return { path: file };
  const exists = await stat(file).then(
    () => true,
    () => false,
  );
  return exists ? { path: file } : { path: match[1], count: Number(match[2]) };
}

/** `limit` items at even distances, in order. */
export function spread<T>(items: readonly T[], limit: number = items.length): T[] {
  if (limit >= items.length) return [...items];
  return Array.from({ length: limit }, (_, i) => items[Math.floor((i * items.length) / limit)]);
}

async function loadFile(path: string): Promise<BenchPrompt[]> {
  let content: string;
  try {
    content = await readFile(path, "utf8");
  } catch (error) {
    throw new AdedError("ADED_BENCH", `cannot read the prompts ${path}: ${messageOf(error)}`, {
      hint: "Name an existing JSONL file after --prompts.",
      cause: error,
    });
  }
  const prompts: BenchPrompt[] = [];
  for (const [index, line] of content.split("\n").entries()) {
    if (line.trim() === "") continue;
    const where = `${path}:${index + 1}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw new AdedError("ADED_BENCH", `${where} is not JSON: ${messageOf(error)}`, { hint: FORMATS });
    }
    const prompt = toPrompt(value, `${basename(path)}:${index + 1}`);
    if (prompt === undefined) {
      throw new AdedError("ADED_BENCH", `${where} holds no prompt: ${line.slice(0, 80)}`, { hint: FORMATS });
    }
    prompts.push(prompt);
  }
  return prompts;
}

function toPrompt(value: unknown, place: string): BenchPrompt | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const map = value as Record<string, unknown>;
  const category = typeof map.category === "string" && map.category !== "" ? map.category : undefined;
  if (Array.isArray(map.turns)) {
    const turn: unknown = map.turns[0];
    if (typeof turn !== "string" || turn.trim() === "") return undefined;
    return { id: `mt-bench/${map.question_id ?? place}`, category: category ?? "mt-bench", text: turn };
  }
  if (typeof map.prompt !== "string" || map.prompt.trim() === "") return undefined;
  if (typeof map.task_id === "string") {
    return {
      id: map.task_id,
      category: category ?? "humaneval",
      text: `${HUMANEVAL_INSTRUCTION}\n\n\`\`\`python\n${map.prompt.trimEnd()}\n\`\`\``,
    };
  }
  const id = typeof map.id === "string" || typeof map.id === "number" ? String(map.id) : place;
  return { id, category: category ?? "default", text: map.prompt };
}

function distinctIds(prompts: BenchPrompt[]): BenchPrompt[] {
  const seen = new Map<string, number>();
  return prompts.map((prompt) => {
    const times = (seen.get(prompt.id) ?? 0) + 1;
    seen.set(prompt.id, times);
    return times === 1 ? prompt : { ...prompt, id: `${prompt.id}#${times}` };
  });
}

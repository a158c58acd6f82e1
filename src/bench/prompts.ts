/**
 * Prompts for benchmarks. The format is told by the file's content: MT-Bench (FastChat's question.jsonl, first turns) and
 * Spec-Bench, which has the same keys, HumanEval, ShareGPT, logs of OpenAI-style requests, plain `{"prompt", "category"?, "id"?}`, and text files of one
 * prompt per line.
 */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { basename, extname } from "node:path";
import { AdedError, messageOf } from "../errors.ts";
import type { ChatMessage } from "./chat-client.ts";

export interface BenchPrompt {
  /** Unique within a run. */
  id: string;
  category: string;
  /** What the user says. */
  text: string;
  /** The whole conversation that is sent, when it is more than `text`. */
  messages?: readonly ChatMessage[];
  /** Prompts of one group are one unit of the bootstrap. @default the id */
  group?: string;
}

const FORMATS =
  'Each line must be a JSON object: MT-Bench or Spec-Bench {"question_id", "category", "turns"}, HumanEval {"task_id", "prompt"}, ' +
  'ShareGPT {"conversations"}, a logged request {"messages"}, or plain {"prompt", "category"}; a .txt file holds one prompt per line.';

/** HumanEval's prompt is the head of a function; a chat model gets it with the usual instruction. */
const HUMANEVAL_INSTRUCTION =
  "Complete the following Python function. Answer with the whole function in one code block, without explanations.";

/** Categories that Spec-Bench has beside MT-Bench's (arXiv 2401.07851, section 4.1). */
const SPEC_BENCH = new Set(["translation", "summarization", "qa", "math_reasoning", "rag"]);

/** A JavaScript string cannot be longer, bytes. */
const MOST_BYTES = 500e6;

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

/** Names a set of prompts, so that a run is only resumed with the same. */
export function hashPrompts(prompts: readonly BenchPrompt[]): string {
  return createHash("sha256").update(JSON.stringify(prompts)).digest("hex").slice(0, 16);
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
  const content = await readText(path);
  const name = basename(path);
  if (extname(path).toLowerCase() === ".txt") {
    return content.split(/\r?\n/).flatMap((line, i): BenchPrompt[] => {
      const text = line.trim();
      return text === "" ? [] : [{ id: `${name}:${i + 1}`, category: "default", text }];
    });
  }
  const values = content.trimStart().startsWith("[") ? readArray(content, path) : readLines(content, path);
  const prompts: BenchPrompt[] = [];
  for (const { value, where, place } of values) {
    const found = toPrompt(value, place);
    if (found === undefined) {
      const shown = JSON.stringify(value)?.slice(0, 80);
      throw new AdedError("ADED_BENCH", `${where} holds no prompt: ${shown}`, { hint: FORMATS });
    }
    if (found !== "skip") prompts.push(found);
  }
  if (!prompts.some(({ category }) => SPEC_BENCH.has(category))) return prompts;
  return prompts.map((prompt) => ({ ...prompt, id: prompt.id.replace(/^mt-bench\//, "spec-bench/") }));
}

async function readText(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > MOST_BYTES) {
      throw new AdedError("ADED_BENCH", `${path} has ${size} bytes, more than can be read at once`, {
        hint: "Cut the file: a benchmark needs some hundred prompts.",
      });
    }
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof AdedError) throw error;
    throw new AdedError("ADED_BENCH", `cannot read the prompts ${path}: ${messageOf(error)}`, {
      hint: "Name an existing file after --prompts.",
      cause: error,
    });
  }
}

interface Entry {
  value: unknown;
  /** For errors, and for the id. */
  where: string;
  place: string;
}

function readLines(content: string, path: string): Entry[] {
  return content.split("\n").flatMap((line, i): Entry[] => {
    if (line.trim() === "") return [];
    const where = `${path}:${i + 1}`;
    try {
      return [{ value: JSON.parse(line) as unknown, where, place: `${basename(path)}:${i + 1}` }];
    } catch (error) {
      throw new AdedError("ADED_BENCH", `${where} is not JSON: ${messageOf(error)}`, { hint: FORMATS });
    }
  });
}

/** One JSON array of prompts, as ShareGPT's files are. */
function readArray(content: string, path: string): Entry[] {
  try {
    const values = JSON.parse(content) as unknown[];
    return values.map((value, i) => ({ value, where: `${path}[${i}]`, place: `${basename(path)}[${i}]` }));
  } catch (error) {
    throw new AdedError("ADED_BENCH", `${path} is no JSON array: ${messageOf(error)}`, { hint: FORMATS });
  }
}

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @returns "skip" for an entry that is well-formed and asks nothing (a conversation that the model begins) */
function toPrompt(value: unknown, place: string): BenchPrompt | "skip" | undefined {
  if (!isFields(value)) return undefined;
  const category = typeof value.category === "string" && value.category !== "" ? value.category : undefined;
  const id = typeof value.id === "string" || typeof value.id === "number" ? String(value.id) : place;
  if (Array.isArray(value.turns)) {
    const turn: unknown = value.turns[0];
    if (!isText(turn)) return undefined;
    return { id: `mt-bench/${value.question_id ?? place}`, category: category ?? "mt-bench", text: turn };
  }
  if (Array.isArray(value.conversations)) {
    const first: unknown = value.conversations[0];
    if (!isFields(first)) return "skip";
    const human = first.from === "human" || first.from === "user";
    return human && isText(first.value)
      ? { id, category: category ?? "sharegpt", text: first.value }
      : "skip";
  }
  const logged = loggedMessages(value);
  if (logged !== undefined)
    return fromLog(logged, { id: textOf(value.custom_id) ?? id, category: category ?? "log" });
  if (!isText(value.prompt)) return undefined;
  if (typeof value.task_id === "string") {
    return {
      id: value.task_id,
      category: category ?? "humaneval",
      text: `${HUMANEVAL_INSTRUCTION}\n\n\`\`\`python\n${value.prompt.trimEnd()}\n\`\`\``,
    };
  }
  return { id, category: category ?? "default", text: value.prompt };
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.trim() !== "";
}

function textOf(value: unknown): string | undefined {
  return isText(value) ? value : undefined;
}

/** `messages` of a request, by itself or under `body` or `request`, as batch files and proxies' logs have it. */
function loggedMessages(value: Fields): unknown[] | undefined {
  for (const at of [
    value,
    value.body,
    value.request,
    isFields(value.request) ? value.request.body : undefined,
  ]) {
    if (isFields(at) && Array.isArray(at.messages)) return at.messages;
  }
  return undefined;
}

/** The conversation up to the last thing that the user said. */
function fromLog(
  logged: readonly unknown[],
  named: { id: string; category: string },
): BenchPrompt | "skip" | undefined {
  const messages: ChatMessage[] = [];
  for (const message of logged) {
    if (!isFields(message) || !isText(message.role)) return undefined;
    messages.push({ role: message.role, content: message.content ?? "" });
  }
  while (messages.length > 0 && messages.at(-1)?.role !== "user") messages.pop();
  const last = messages.at(-1);
  if (last === undefined) return "skip";
  const text = typeof last.content === "string" ? last.content : JSON.stringify(last.content);
  return messages.length === 1 && typeof last.content === "string"
    ? { ...named, text }
    : { ...named, text, messages };
}

function distinctIds(prompts: BenchPrompt[]): BenchPrompt[] {
  const seen = new Map<string, number>();
  return prompts.map((prompt) => {
    const times = (seen.get(prompt.id) ?? 0) + 1;
    seen.set(prompt.id, times);
    return times === 1 ? prompt : { ...prompt, id: `${prompt.id}#${times}` };
  });
}

/**
 * MT-Bench (arXiv 2306.05685): 80 questions of two turns, answered in both arms. Answers are written as FastChat writes them
 * (`model_answer/MODEL.jsonl`), with the speed fields that papers on speculative decoding add to each choice: steps, new tokens and
 * wall time by turn (as Spec-Bench names them; `idxs` is the older name of the steps).
 */
import { createHash } from "node:crypto";
import type { AbSample } from "../bench/ab-sample.ts";
import type { Arm, ChatClient, ChatMessage } from "../bench/chat-client.ts";
import { AdedError } from "../errors.ts";
import { armOrder, ask, stepsOf } from "./arms.ts";
import { type Journal, readJsonLines } from "./journal.ts";

export interface MtQuestion {
  question_id: number;
  category: string;
  turns: string[];
  /** Answers to judge by, where there are any. */
  reference?: string[];
}

/** One question, answered in both arms. */
export interface MtEntry {
  question_id: number;
  samples: AbSample[];
  /** Seconds since 1970. */
  tstamp: number;
}

/** A line of FastChat's answer file. */
export interface MtAnswer {
  question_id: number;
  answer_id: string;
  model_id: string;
  choices: {
    index: number;
    turns: string[];
    decoding_steps: number[];
    idxs: number[];
    new_tokens: number[];
    /** Seconds. */
    wall_time: number[];
  }[];
  tstamp: number;
}

/** FastChat's temperature by category (llm_judge/common.py). */
const TEMPERATURES: Record<string, number> = {
  writing: 0.7,
  roleplay: 0.7,
  extraction: 0,
  math: 0,
  coding: 0,
  reasoning: 0,
  stem: 0.1,
  humanities: 0.1,
};

/** @throws AdedError ADED_EVAL when a line is no question */
export async function loadQuestions(path: string): Promise<MtQuestion[]> {
  const lines = await readJsonLines(path);
  return lines.map((line, i) => {
    const { question_id: id, category, turns, reference } = line;
    const ok =
      typeof id === "number" && Array.isArray(turns) && turns.every((turn) => typeof turn === "string");
    if (!ok || turns.length === 0) {
      throw new AdedError("ADED_EVAL", `${path}:${i + 1} is no question of MT-Bench`, {
        hint: 'Each line has "question_id", "category" and "turns", as FastChat\'s question.jsonl.',
      });
    }
    return {
      question_id: id,
      category: typeof category === "string" ? category : "mt-bench",
      turns: turns as string[],
      ...(Array.isArray(reference) ? { reference: reference.map(String) } : {}),
    };
  });
}

export interface MtRunOptions {
  questions: readonly MtQuestion[];
  maxTokens: number;
  seed: number;
  /** For every question; undefined: FastChat's by category. */
  temperature?: number;
  model?: string;
  signal?: AbortSignal;
  onProgress?(done: number, total: number): void;
}

/** Answers the questions that the journal does not hold yet. */
export async function runMtBench(
  client: ChatClient,
  journal: Journal<MtEntry>,
  options: MtRunOptions,
): Promise<void> {
  const { questions, onProgress, signal } = options;
  const done = new Set(journal.entries.map((entry) => entry.question_id));
  const startedAt = performance.now();
  let count = questions.filter(({ question_id }) => done.has(question_id)).length;
  onProgress?.(count, questions.length);
  for (const question of questions) {
    if (done.has(question.question_id)) continue;
    const samples: AbSample[] = [];
    const order = armOrder(String(question.question_id), options.seed);
    const history: Record<Arm, ChatMessage[]> = { on: [], off: [] };
    // turn by turn, so that the two requests of a pair follow each other
    for (const [turn, text] of question.turns.entries()) {
      for (const arm of order) {
        history[arm].push({ role: "user", content: text });
        const asked = {
          id: `mt-bench/${question.question_id}/${turn + 1}`,
          group: `mt-bench/${question.question_id}`,
          category: question.category,
          messages: [...history[arm]],
          temperature: options.temperature ?? TEMPERATURES[question.category] ?? 0.7,
          seed: options.seed,
          maxTokens: options.maxTokens,
          model: options.model,
          repeat: 0,
        };
        const sample = await ask(client, asked, { arm, first: arm === order[0], startedAt, signal });
        history[arm].push({ role: "assistant", content: sample.text });
        samples.push(sample);
      }
    }
    await journal.append({ question_id: question.question_id, samples, tstamp: Date.now() / 1000 });
    onProgress?.(++count, questions.length);
  }
}

/** The answers of one arm, in the order of the questions. */
export function answersOf(entries: readonly MtEntry[], arm: Arm, modelId: string): MtAnswer[] {
  return [...entries]
    .sort((a, b) => a.question_id - b.question_id)
    .map(({ question_id, samples, tstamp }) => {
      const turns = samples.filter((sample) => sample.arm === arm);
      const steps = turns.map(stepsOf);
      const texts = turns.map(({ text }) => text);
      return {
        question_id,
        answer_id: createHash("sha256")
          .update(JSON.stringify([modelId, question_id, texts, tstamp]))
          .digest("base64url")
          .slice(0, 22),
        model_id: modelId,
        choices: [
          {
            index: 0,
            turns: texts,
            decoding_steps: steps,
            idxs: steps,
            new_tokens: turns.map(({ predicted_n }) => predicted_n),
            wall_time: turns.map(({ e2e_ms }) => (e2e_ms ?? 0) / 1000),
          },
        ],
        tstamp,
      };
    });
}

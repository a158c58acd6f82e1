/**
 * An LLM as MT-Bench's judge: single answers graded from 1 to 10, or two answers compared, each pair a second time with their
 * places swapped, where only a winner in both orders counts (arXiv 2306.05685, sections 3.1 and 3.4). The roles of the
 * prompts are the published ones (system: an impartial judge; user: question, reference where there is one, answers; verdict in double
 * brackets at the end); their wording is ours. Lines are written in the shape of FastChat's judgment files.
 */
import type { ChatClient, ChatMessage, ChatRequest } from "../bench/chat-client.ts";
import { AdedError } from "../errors.ts";
import type { MtAnswer, MtQuestion } from "./mt-bench.ts";

export interface JudgeOptions {
  client: Pick<ChatClient, "chat">;
  /** Name of the judging model; also written into the judgments. */
  model?: string;
  maxTokens?: number;
  signal?: AbortSignal;
}

export interface SingleJudgment {
  question_id: number;
  model: string;
  judge: [model: string, prompt: string];
  user_prompt: string;
  judgment: string;
  /** 1 … 10; -1: the judge named none. */
  score: number;
  turn: number;
  tstamp: number;
}

export type Winner = "model_1" | "model_2" | "tie" | "error";

export interface PairJudgment {
  question_id: number;
  model_1: string;
  model_2: string;
  /** In the first game model_1's answer stands first, in the second model_2's. */
  g1_winner: Winner;
  g2_winner: Winner;
  judge: [model: string, prompt: string];
  g1_user_prompt: string;
  g1_judgment: string;
  g2_user_prompt: string;
  g2_judgment: string;
  turn: number;
  tstamp: number;
}

const SINGLE_SYSTEM =
  "You judge, impartially, how well an AI assistant answered a user. Weigh whether the answer helps, whether it is right, " +
  "relevant, thorough and creative, and how detailed it is. First explain your judgment in a few sentences. Then end with " +
  "your grade, a whole number from 1 (worst) to 10 (best), exactly in this form: Rating: [[5]]";

const PAIR_SYSTEM =
  "You judge, impartially, which of two AI assistants answered a user better. Weigh whether the answers help, whether they " +
  "are right, relevant, thorough and creative, and how detailed they are. The order in which the answers stand, their length " +
  "and the assistants' names must not matter. First compare the answers in a few sentences. Then end with your verdict: [[A]] if " +
  "assistant A is better, [[B]] if assistant B is better, [[C]] for a tie.";

const REFERENCE_NOTE =
  "A correct answer is given for reference; find out where the assistant departs from it.";

export async function judgeSingle(
  question: MtQuestion,
  answer: MtAnswer,
  turn: number,
  options: JudgeOptions,
): Promise<SingleJudgment> {
  const prompt = [conversation("Assistant", question, answer, turn), referenceOf(question, turn)].join("");
  const judgment = await askJudge(SINGLE_SYSTEM, prompt, options);
  return {
    question_id: question.question_id,
    model: answer.model_id,
    judge: [options.model ?? "default", "aded-single-v1"],
    user_prompt: prompt,
    judgment,
    score: ratingIn(judgment),
    turn,
    tstamp: Date.now() / 1000,
  };
}

export async function judgePair(
  question: MtQuestion,
  [first, second]: readonly [MtAnswer, MtAnswer],
  turn: number,
  options: JudgeOptions,
): Promise<PairJudgment> {
  const promptOf = (a: MtAnswer, b: MtAnswer): string =>
    [
      conversation("Assistant A", question, a, turn),
      "\n\n",
      conversation("Assistant B", question, b, turn),
      referenceOf(question, turn),
    ].join("");
  const [forward, backward] = [promptOf(first, second), promptOf(second, first)];
  const g1 = await askJudge(PAIR_SYSTEM, forward, options);
  const g2 = await askJudge(PAIR_SYSTEM, backward, options);
  return {
    question_id: question.question_id,
    model_1: first.model_id,
    model_2: second.model_id,
    g1_winner: winnerIn(g1, ["model_1", "model_2"]),
    g2_winner: winnerIn(g2, ["model_2", "model_1"]),
    judge: [options.model ?? "default", "aded-pair-v1"],
    g1_user_prompt: forward,
    g1_judgment: g1,
    g2_user_prompt: backward,
    g2_judgment: g2,
    turn,
    tstamp: Date.now() / 1000,
  };
}

/** A winner only if both orders agree; anything else is a tie. */
export function verdictOf({ g1_winner, g2_winner }: PairJudgment): Winner {
  if (g1_winner === "error" || g2_winner === "error") return "error";
  return g1_winner === g2_winner ? g1_winner : "tie";
}

export interface ScoreReport {
  /** Mean of the grades; null when there are none. */
  mean: number | null;
  first_turn: number | null;
  second_turn: number | null;
  categories: Record<string, number | null>;
  graded: number;
  /** Judgments that named no grade. */
  without: number;
}

export function scoresOf(
  judgments: readonly SingleJudgment[],
  questions: readonly MtQuestion[],
): ScoreReport {
  const categoryOf = new Map(questions.map(({ question_id, category }) => [question_id, category]));
  const graded = judgments.filter(({ score }) => score > 0);
  const mean = (of: readonly SingleJudgment[]): number | null =>
    of.length === 0 ? null : of.reduce((sum, { score }) => sum + score, 0) / of.length;
  const categories: Record<string, number | null> = {};
  for (const category of new Set(questions.map((question) => question.category))) {
    categories[category] = mean(graded.filter(({ question_id }) => categoryOf.get(question_id) === category));
  }
  return {
    mean: mean(graded),
    first_turn: mean(graded.filter(({ turn }) => turn === 1)),
    second_turn: mean(graded.filter(({ turn }) => turn === 2)),
    categories,
    graded: graded.length,
    without: judgments.length - graded.length,
  };
}

/** @returns -1 when the judgment ends without a grade */
export function ratingIn(judgment: string): number {
  const found =
    [...judgment.matchAll(/\[\[\s*(\d+(?:\.\d+)?)\s*\]\]/g)].at(-1) ??
    /Rating:\s*\[?(\d+)\]?/i.exec(judgment);
  const score = found === undefined || found === null ? Number.NaN : Number(found[1]);
  return score >= 1 && score <= 10 ? score : -1;
}

/** @param players who stood first, and who second */
export function winnerIn(judgment: string, players: readonly [Winner, Winner]): Winner {
  const letter = [...judgment.matchAll(/\[\[\s*([ABC])\s*\]\]/g)].at(-1)?.[1];
  if (letter === undefined) return "error";
  return letter === "C" ? "tie" : players[letter === "A" ? 0 : 1];
}

function conversation(name: string, question: MtQuestion, { choices }: MtAnswer, turn: number): string {
  const lines: string[] = [`### Conversation with ${name}`];
  for (let i = 0; i < turn; i++) {
    lines.push(
      `#### User, turn ${i + 1}`,
      question.turns[i],
      `#### ${name}, turn ${i + 1}`,
      choices[0].turns[i] ?? "",
    );
  }
  if (turn > 1) lines.push(`(Judge the answer of turn ${turn}.)`);
  return lines.join("\n\n");
}

function referenceOf({ reference }: MtQuestion, turn: number): string {
  const text = reference?.[turn - 1];
  return text === undefined ? "" : `\n\n### Reference for turn ${turn}\n\n${REFERENCE_NOTE}\n\n${text}`;
}

async function askJudge(system: string, user: string, options: JudgeOptions): Promise<string> {
  const messages: ChatMessage[] = [
    { role: "system", content: system },
    { role: "user", content: user },
  ];
  const request: ChatRequest = {
    text: user,
    messages,
    arm: "on",
    maxTokens: options.maxTokens ?? 2048,
    temperature: 0,
    seed: 1,
    model: options.model,
    stream: false,
  };
  const { text } = await options.client.chat(request, options.signal);
  if (text.trim() === "") {
    throw new AdedError("ADED_EVAL", "the judge answered nothing", {
      hint: "Look at the judge's model and limits.",
    });
  }
  return text;
}

import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { ChatClient, type ChatMessage } from "../../../src/bench/chat-client.ts";
import { Journal } from "../../../src/eval/journal.ts";
import { judgePair, judgeSingle, ratingIn, scoresOf, verdictOf, winnerIn } from "../../../src/eval/judge.ts";
import { answersOf, loadQuestions, type MtEntry, runMtBench } from "../../../src/eval/mt-bench.ts";
import { FakeServer, timings } from "../bench/support/fake-server.ts";

const QUESTIONS = [
  { question_id: 81, category: "writing", turns: ["Write.", "Again."] },
  { question_id: 121, category: "coding", turns: ["Code.", "Faster."], reference: ["ref one", "ref two"] },
];

let folder: string;
let server: FakeServer;
let client: ChatClient;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "aded-mt-"));
  server = new FakeServer();
  client = new ChatClient(await server.listen());
});
afterEach(async () => {
  await client.close();
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

const RUN = { questions: QUESTIONS, maxTokens: 64, seed: 1 };

describe("runMtBench", () => {
  it("asks both turns in both arms, each with its own history and the category's temperature", async () => {
    server.answer = ({ arm, body }) => ({
      pieces: [`answer ${(body.messages as unknown[]).length}`],
      armHeader: arm,
      timings: timings(12, 30, arm === "on" ? { draft_n: 20, draft_n_accepted: 7 } : {}),
    });
    const journal = await Journal.open<MtEntry>(path.join(folder, "j"), { a: 1 });
    await runMtBench(client, journal, RUN);
    expect(server.seen).toHaveLength(8);
    const second = server.seen[2].body.messages as ChatMessage[];
    expect(second).toEqual([
      { role: "user", content: "Write." },
      { role: "assistant", content: "answer 1" },
      { role: "user", content: "Again." },
    ]);
    expect([server.seen[0].arm, server.seen[1].arm].sort()).toEqual(["off", "on"]);
    expect(server.seen.map(({ body }) => body.temperature)).toEqual([0.7, 0.7, 0.7, 0.7, 0, 0, 0, 0]);
    const [answer] = answersOf(journal.entries, "on", "toy");
    expect(answer).toMatchObject({
      question_id: 81,
      model_id: "toy",
      choices: [
        {
          index: 0,
          turns: ["answer 1", "answer 3"],
          new_tokens: [12, 12],
          decoding_steps: [5, 5],
          idxs: [5, 5],
        },
      ],
    });
    expect(answer.choices[0].wall_time[0]).toBeGreaterThan(0);
    expect(answer.answer_id).toMatch(/^[\w-]{22}$/);
    expect(answersOf(journal.entries, "off", "toy")[0].choices[0].decoding_steps).toEqual([12, 12]);
  });

  it("goes on where it stopped, past a torn line", async () => {
    const file = path.join(folder, "j");
    const first = await Journal.open<MtEntry>(file, { a: 1 });
    await runMtBench(client, first, { ...RUN, questions: QUESTIONS.slice(0, 1) });
    await appendFile(file, '{"question_id": 121, "sam');
    const second = await Journal.open<MtEntry>(file, { a: 1 });
    expect(second.entries).toHaveLength(1);
    await runMtBench(client, second, RUN);
    expect(server.seen).toHaveLength(8);
    expect((await readFile(file, "utf8")).split("\n")).toHaveLength(4);
    await expect(Journal.open(file, { a: 2 })).rejects.toThrow("other options");
  });

  it("tells a file that holds no questions", async () => {
    const file = path.join(folder, "q.jsonl");
    await writeFile(file, '{"question_id": 1, "turns": "x"}\n');
    await expect(loadQuestions(file)).rejects.toThrow("q.jsonl:1 is no question of MT-Bench");
  });
});

describe("the judge", () => {
  it.each([
    ["Good. Rating: [[7]]", 7],
    ["[[3]] at first, but no: Rating: [[8.5]]", 8.5],
    ["Rating: 6", 6],
    ["Rating: [[11]]", -1],
    ["I can't say.", -1],
  ])("reads the grade of %j", (text, score) => {
    expect(ratingIn(text)).toBe(score);
  });

  it("counts a winner only if both orders agree", () => {
    expect(winnerIn("so [[A]]", ["model_2", "model_1"])).toBe("model_2");
    expect(winnerIn("so [[C]]", ["model_1", "model_2"])).toBe("tie");
    expect(winnerIn("so A", ["model_1", "model_2"])).toBe("error");
    const game = (g1_winner: "model_1" | "model_2" | "tie", g2_winner: "model_1" | "model_2" | "tie") =>
      verdictOf({ g1_winner, g2_winner } as Parameters<typeof verdictOf>[0]);
    expect([game("model_1", "model_1"), game("model_1", "model_2"), game("tie", "model_2")]).toEqual([
      "model_1",
      "tie",
      "tie",
    ]);
  });

  it("sees question, answers and reference, each pair in both orders", async () => {
    const journal = await Journal.open<MtEntry>(path.join(folder, "j"), {});
    server.answer = ({ arm }) => ({ pieces: [`from ${arm}`] });
    await runMtBench(client, journal, RUN);
    const [on, off] = [answersOf(journal.entries, "on", "m"), answersOf(journal.entries, "off", "m-plain")];
    server.answer = () => ({ pieces: ["Fine. Rating: [[9]] [[A]]"], whole: true });
    const options = { client, model: "judge" };
    const single = await judgeSingle(QUESTIONS[1], on[1], 2, options);
    expect(single).toMatchObject({
      question_id: 121,
      turn: 2,
      model: "m",
      judge: ["judge", "aded-single-v1"],
    });
    for (const text of ["Code.", "Faster.", "from on", "ref two"]) expect(single.user_prompt).toContain(text);
    const pair = await judgePair(QUESTIONS[0], [on[0], off[0]], 1, options);
    expect(pair).toMatchObject({
      model_1: "m",
      model_2: "m-plain",
      g1_winner: "model_1",
      g2_winner: "model_2",
    });
    expect(pair.g1_user_prompt.indexOf("from on")).toBeLessThan(pair.g1_user_prompt.indexOf("from off"));
    expect(pair.g2_user_prompt.indexOf("from off")).toBeLessThan(pair.g2_user_prompt.indexOf("from on"));
    expect(scoresOf([{ ...single, score: 9 }], QUESTIONS)).toMatchObject({
      mean: 9,
      second_turn: 9,
      graded: 1,
    });
  });
});

/** LoRA adapters: what they make of the model is drafted for like any other. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { writeAdapter } from "./support/chance-files.ts";
import { EXACT } from "./support/exact.ts";
import { type Arm, type Completion, complete, visible } from "./support/generate.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

/** Strength of each of the two adapters, by name. */
const SCALES = { neither: [0, 0], first: [1, 0], second: [0, 1], both: [0.5, 1] };

let stack: Stack;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-adapters-"));
  const files = [1, 2].map((seed) => path.join(folder, `${seed}.gguf`));
  for (const [i, file] of files.entries()) writeAdapter(file, i + 1);
  const args = ["--lora", files.join(","), "--lora-init-without-apply"];
  stack = await startStack({ ...EXACT, args: [...(EXACT.args ?? []), ...args] });
}, SETUP_MS);
afterAll(async () => {
  await stack?.stop();
  rmSync(folder, { recursive: true, force: true });
});

function answer(scales: number[], body: Record<string, unknown>, arm: Arm): Promise<Completion> {
  const lora = scales.map((scale, id) => ({ id, scale }));
  return complete(stack.proxy, { prompt: TURNS[0], n_predict: 48, lora, ...body }, arm);
}

it("text and log-probabilities with an adapter are those without drafts, one after the other and at once", async () => {
  const requests = Object.values(SCALES).map((scales, i) => ({
    scales,
    body: { n_probs: 3, ...(i % 2 === 0 ? {} : { temperature: 0.8, seed: 7 }) },
  }));
  const alone: Completion[] = [];
  for (const { scales, body } of requests) alone.push(await answer(scales, body, "off"));
  // each adapter makes another text of it, so that a wrong one would show
  expect(new Set(alone.map(({ content }) => content)).size).toBe(requests.length);

  const drafted: Completion[] = [];
  for (const { scales, body } of requests) drafted.push(await answer(scales, body, "on"));
  const together = await Promise.all(requests.map(({ scales, body }) => answer(scales, body, "on")));
  for (const answers of [drafted, together]) {
    expect(answers.map(visible)).toEqual(alone.map(visible));
    expect(answers.map(({ completion_probabilities }) => completion_probabilities)).toEqual(
      alone.map(({ completion_probabilities }) => completion_probabilities),
    );
    const accepted = answers.map(({ timings }) => timings.draft_n_accepted ?? 0);
    expect(Math.min(...accepted)).toBeGreaterThan(0);
  }
});

it("a conversation that changes its adapter goes on as without drafts", async () => {
  const turns = async (arm: Arm, id_slot: number): Promise<string[]> => {
    const texts: string[] = [];
    let prompt: string = TURNS[1];
    for (const scales of [SCALES.first, SCALES.first, SCALES.second, SCALES.neither]) {
      const { content } = await answer(scales, { prompt, id_slot, cache_prompt: true, n_predict: 24 }, arm);
      texts.push(content);
      prompt += content;
    }
    return texts;
  };
  const plain = await turns("off", 0);
  expect(await turns("on", 1)).toEqual(plain);
});

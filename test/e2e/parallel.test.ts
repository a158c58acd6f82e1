/** Slots that share every forward pass, and their draft trees with it, know nothing of each other. */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { EXACT } from "./support/exact.ts";
import { type Arm, type Completion, complete, visible } from "./support/generate.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

/** Twice as many as there are slots; of different length, so that slots end, and take the next one, at different steps. */
const REQUESTS: Record<string, unknown>[] = [
  { prompt: TURNS[0], n_predict: 40 },
  { prompt: TURNS[1], n_predict: 12, temperature: 0.9, seed: 5 },
  { prompt: TURNS[2], n_predict: 33, stop: ["\n\n"] },
  { prompt: TURNS[3], n_predict: 24, temperature: 0.7, seed: 6, repeat_penalty: 1.2 },
  { prompt: TURNS[4], n_predict: 17, grammar: 'root ::= ("* " [A-Za-z ]+ "\n")+' },
  { prompt: TURNS[5], n_predict: 29, n_probs: 3 },
  { prompt: TURNS[0], n_predict: 21, temperature: 1.1, seed: 7 },
  { prompt: TURNS[3], n_predict: 36 },
];

let stack: Stack;
/** What each request gives when it is alone, without drafts. */
let alone: ReturnType<typeof visible>[];

const together = (arm: (index: number) => Arm): Promise<Completion[]> =>
  Promise.all(REQUESTS.map((request, index) => complete(stack.proxy, request, arm(index))));

function expectAlone(answers: readonly Completion[]): void {
  expect(answers.map(visible)).toEqual(alone);
}

function accepted(answers: readonly Completion[]): number {
  return answers.reduce((sum, { timings }) => sum + (timings.draft_n_accepted ?? 0), 0);
}

describe.each([
  ["one cache for all", []],
  ["a cache per slot", ["--no-kv-unified"]],
])("four slots, %s", (_name, args) => {
  beforeAll(async () => {
    stack = await startStack({ ...EXACT, args: [...(EXACT.args ?? []), ...args] });
    alone ??= await oneByOne();
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("give with drafts what each request gives alone without", async () => {
    const answers = await together(() => "on");
    expectAlone(answers);
    expect(accepted(answers)).toBeGreaterThan(0);
  });

  it("give the same when only some of them draft", async () => {
    const answers = await together((index) => (index % 2 === 0 ? "on" : "off"));
    expectAlone(answers);
    for (const [index, { timings }] of answers.entries()) {
      if (index % 2 === 1) expect(timings.draft_n).toBeUndefined();
    }
    expect(accepted(answers)).toBeGreaterThan(0);
  });
});

async function oneByOne(): Promise<ReturnType<typeof visible>[]> {
  const texts: ReturnType<typeof visible>[] = [];
  for (const request of REQUESTS) texts.push(visible(await complete(stack.proxy, request, "off")));
  return texts;
}

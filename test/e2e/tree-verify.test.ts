/** POST /tree-verify: many trees at once give what they give one by one, and what decoding their paths gives. */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { Random } from "../../src/drafter/random.ts";
import { EXACT, LOGPROB_ROUNDING } from "./support/exact.ts";
import { complete, type TokenChoice } from "./support/generate.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

interface Tree {
  tokens: number[];
  parents: number[];
}

interface Verified {
  accepted: number[];
  tokens: number[];
  next: number;
  nodes: { top: TokenChoice[] }[];
}

interface Result {
  index: number;
  n_prompt: number;
  n_cached: number;
  root: { top: TokenChoice[] };
  trees: Verified[];
}

interface Answer {
  object: string;
  results: Result[];
  timings: { prompt_ms: number; verify_ms: number; n_forward: number; n_nodes: number };
}

const N_VOCAB = 49152;
const EMPTY: Tree = { tokens: [], parents: [] };

let stack: Stack;
/** Greedy continuations of the prompts. */
const greedy: number[][] = [];

const verify = (body: unknown): Promise<Answer> => stack.proxy.post<Answer>("/tree-verify", body);

/** Parents before children or not, as it comes; half of the tokens continue the greedy text somewhere. */
function randomTree(random: Random, size: number, likely: readonly number[]): Tree {
  const tokens: number[] = [];
  const parents: number[] = [];
  for (let i = 0; i < size; i++) {
    const token = random.next() < 0.5 ? likely[random.below(likely.length)] : random.below(N_VOCAB);
    tokens.push(token);
    parents.push(random.below(i + 1) - 1);
  }
  return shuffled({ tokens, parents }, random);
}

/** The same tree with its nodes in another order. */
function shuffled({ tokens, parents }: Tree, random: Random): Tree {
  const place = tokens.map((_, i) => i);
  for (let i = place.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [place[i], place[j]] = [place[j], place[i]];
  }
  const tree: Tree = { tokens: [], parents: [] };
  for (const [i, at] of place.entries()) {
    tree.tokens[at] = tokens[i];
    tree.parents[at] = parents[i] < 0 ? -1 : place[parents[i]];
  }
  return tree;
}

/** Tokens from the root's child down to `node`. */
function pathTo({ tokens, parents }: Tree, node: number): number[] {
  return node < 0 ? [] : [...pathTo({ tokens, parents }, parents[node]), tokens[node]];
}

function expectSameTop(actual: readonly TokenChoice[], expected: readonly TokenChoice[]): void {
  expect(actual).toHaveLength(expected.length);
  for (const [rank, { logprob }] of actual.entries()) {
    expect(Math.abs(logprob - expected[rank].logprob)).toBeLessThan(LOGPROB_ROUNDING);
  }
}

function expectSameTree(actual: Verified, expected: Verified): void {
  const { accepted, tokens, next } = expected;
  expect(actual).toMatchObject({ accepted, tokens, next });
  expect(actual.nodes).toHaveLength(expected.nodes.length);
  for (const [i, { top }] of actual.nodes.entries()) expectSameTop(top, expected.nodes[i].top);
}

beforeAll(async () => {
  stack = await startStack(EXACT);
  for (const prompt of TURNS) {
    greedy.push((await complete(stack.proxy, { prompt, n_predict: 12 }, "off")).tokens);
  }
}, SETUP_MS);
afterAll(() => stack?.stop());

describe("trees", () => {
  it("of several prompts at once give what each gives alone", async () => {
    const random = new Random(1);
    const prompts = await Promise.all(
      TURNS.map(async (text, p) => ({
        prompt: p % 2 === 0 ? text : await tokenize(text),
        trees: [randomTree(random, 5 + p, greedy[p]), EMPTY, randomTree(random, 30, greedy[p])],
      })),
    );
    const { object, results, timings } = await verify({ prompts, top_k: 5 });
    expect(object).toBe("tree_verification");
    expect(results.map(({ index }) => index)).toEqual(prompts.map((_, index) => index));
    expect(timings.n_nodes).toBe(
      prompts.flatMap(({ trees }) => trees).reduce((n, tree) => n + tree.tokens.length, 0),
    );
    for (const [p, { prompt, trees }] of prompts.entries()) {
      for (const [t, tree] of trees.entries()) {
        const single = (await verify({ prompt, trees: [tree], top_k: 5 })).results[0];
        expectSameTop(results[p].root.top, single.root.top);
        expectSameTree(results[p].trees[t], single.trees[0]);
      }
    }
  });

  it("give at every node what decoding its path gives", async () => {
    const random = new Random(2);
    const prompt = await tokenize(TURNS[1]);
    const tree = randomTree(random, 24, greedy[1]);
    const [{ root, trees }] = (await verify({ prompt, trees: [tree], top_k: 6 })).results;
    const tops = [root.top, ...trees[0].nodes.map(({ top }) => top)];
    for (const [i, top] of tops.entries()) {
      const path = pathTo(tree, i - 1);
      const body = { prompt: [...prompt, ...path], n_predict: 1, n_probs: 6, cache_prompt: true };
      const { completion_probabilities = [] } = await complete(stack.proxy, body, "off");
      expectSameTop(top, completion_probabilities[0].top_logprobs ?? []);
    }
  });

  it("are accepted along the greedy text, whatever stands beside it and in whatever order", async () => {
    const random = new Random(3);
    for (const [p, text] of TURNS.entries()) {
      const tokens = greedy[p].slice(0, 8);
      const parents = tokens.map((_, i) => i - 1);
      for (let i = 0; i < 40; i++) {
        parents.push(random.below(tokens.length + 1) - 1);
        tokens.push(random.below(N_VOCAB));
      }
      const tree = shuffled({ tokens, parents }, random);
      const [{ trees }] = (await verify({ prompt: text, trees: [tree] })).results;
      const { accepted, tokens: taken, next } = trees[0];
      expect([...taken, next]).toEqual(greedy[p].slice(0, taken.length + 1));
      expect(taken.length).toBeGreaterThanOrEqual(8);
      expect(accepted.map((node) => tree.tokens[node])).toEqual(taken);
      expect(accepted.map((node) => tree.parents[node])).toEqual([-1, ...accepted.slice(0, -1)]);
    }
  });

  it("may have 64 nodes: a chain, a star, siblings that are equal", async () => {
    const prompt = TURNS[2];
    const long = (await complete(stack.proxy, { prompt, n_predict: 65 }, "off")).tokens;
    const chain = { tokens: long.slice(0, 64), parents: long.slice(0, 64).map((_, i) => i - 1) };
    const star = {
      tokens: chain.tokens.map((_, i) => (i === 63 ? long[0] : 1000 + i)),
      parents: chain.tokens.map(() => -1),
    };
    const twins = { tokens: [long[0], long[0], long[1]], parents: [-1, -1, 0] };
    const [{ trees }] = (await verify({ prompt, trees: [chain, star, twins], top_k: 1 })).results;
    expect(trees[0]).toMatchObject({
      accepted: chain.tokens.map((_, i) => i),
      tokens: chain.tokens,
      next: long[64],
    });
    expect(trees[1]).toMatchObject({ accepted: [63], tokens: [long[0]], next: long[1] });
    expect(trees[2].tokens).toEqual(long.slice(0, 2));
  });

  it("may be empty, and top_k may be 0: the prompt's next token is told", async () => {
    const [result] = (await verify({ prompt: TURNS[0], trees: [EMPTY], top_k: 0 })).results;
    expect(result.root.top).toEqual([]);
    expect(result.trees).toEqual([{ accepted: [], tokens: [], next: greedy[0][0], nodes: [] }]);
  });

  it("find the prompt in the cache the second time", async () => {
    const body = { prompt: `${TURNS[4]} Be brief.`, trees: [EMPTY] };
    const [first, second] = [await verify(body), await verify(body)].map(({ results }) => results[0]);
    expect(second.n_prompt).toBe(first.n_prompt);
    expect(second.n_cached).toBeGreaterThan(first.n_prompt / 2);
    expectSameTop(second.root.top, first.root.top);
  });

  it("and completions with drafts don't disturb each other", async () => {
    const random = new Random(4);
    const body = {
      prompt: TURNS[3],
      trees: [randomTree(random, 40, greedy[3]), randomTree(random, 40, greedy[3])],
    };
    const before = await verify(body);
    const plain = await complete(stack.proxy, { prompt: TURNS[0], n_predict: 40 }, "off");
    const [drafted, ...answers] = await Promise.all([
      complete(stack.proxy, { prompt: TURNS[0], n_predict: 40 }, "on"),
      ...Array.from({ length: 6 }, () => verify(body)),
    ]);
    expect(drafted.tokens).toEqual(plain.tokens);
    for (const { results } of answers) {
      for (const [t, tree] of results[0].trees.entries()) expectSameTree(tree, before.results[0].trees[t]);
    }
  });
});

describe("bad input is refused with the place of the fault:", () => {
  const one = (tree: unknown): unknown => ({ prompts: [{ prompt: "a b", trees: [tree] }] });
  const nodes = (n: number): Tree => ({
    tokens: Array(n).fill(5) as number[],
    parents: Array(n).fill(-1) as number[],
  });
  const cases: [name: string, body: unknown, message: string | RegExp][] = [
    [
      "a cycle",
      one({ tokens: [5, 6, 7], parents: [2, 0, 1] }),
      /prompts\[0\]\.trees\[0\]\.parents\[0\] = 2 leads into a cycle/,
    ],
    [
      "a node that is its own parent",
      one({ tokens: [5], parents: [0] }),
      /parents\[0\] = 0 leads into a cycle/,
    ],
    [
      "a parent out of range",
      one({ tokens: [5, 6], parents: [-1, 9] }),
      "prompts[0].trees[0].parents[1] = 9 is out of range (tree has 2 nodes)",
    ],
    ["a parent below -1", one({ tokens: [5], parents: [-2] }), /parents\[0\] = -2 is out of range/],
    [
      "an id beyond the vocabulary",
      one({ tokens: [5, N_VOCAB], parents: [-1, 0] }),
      /tokens\[1\] = 49152 is not in the vocabulary \(49152 tokens\)/,
    ],
    ["a negative id", one({ tokens: [-1], parents: [-1] }), /tokens\[0\] = -1 is not in the vocabulary/],
    [
      "an id of 40 bits",
      one({ tokens: [2 ** 40], parents: [-1] }),
      /tokens\[0\] = 1099511627776 is out of range/,
    ],
    ["an id that is no integer", one({ tokens: [1.5], parents: [-1] }), /tokens\[0\] is not an integer/],
    ["an id that is a text", one({ tokens: ["5"], parents: [-1] }), /tokens\[0\] is not an integer/],
    ["too many nodes", one(nodes(65)), /prompts\[0\]\.trees\[0\] has 65 nodes, allowed are 64/],
    ["lengths that differ", one({ tokens: [5, 6], parents: [-1] }), /has 2 tokens, but 1 parents/],
    ["a tree without parents", one({ tokens: [5] }), /lacks "parents"/],
    ["a tree without tokens", one({ parents: [-1] }), /lacks "tokens"/],
    ["tokens that are no array", one({ tokens: 5, parents: [-1] }), /tokens is not an array/],
    ["a tree that is no object", one([5]), /trees\[0\] is not an object/],
    ["no trees", { prompt: "a" }, /prompts\[0\]\.trees must be a non-empty array/],
    ["trees that are no array", { prompt: "a", trees: {} }, /trees must be a non-empty array/],
    ["an empty list of trees", { prompt: "a", trees: [] }, /trees must be a non-empty array/],
    ["too many trees", { prompt: "a", trees: Array(65).fill(EMPTY) }, /has 65 trees, allowed are 64/],
    ["no prompts", { prompts: [] }, /"prompts" must be a non-empty array/],
    ["prompts that are no array", { prompts: "a" }, /"prompts" must be a non-empty array/],
    [
      "too many prompts",
      { prompts: Array(65).fill({ prompt: "a", trees: [EMPTY] }) },
      /65 prompts, allowed are 64/,
    ],
    ["a prompt without text", { prompts: [{ trees: [EMPTY] }] }, /prompts\[0\] lacks "prompt"/],
    ["an empty text", { prompt: "", trees: [EMPTY] }, /prompts\[0\]\.prompt is empty/],
    ["an empty list of tokens", { prompt: [], trees: [EMPTY] }, /prompt.* must not be empty/],
    ["a prompt that is a number", { prompt: 5, trees: [EMPTY] }, /prompts\[0\]\.prompt is neither text nor/],
    [
      "a prompt's id beyond the vocabulary",
      { prompt: [5, N_VOCAB], trees: [EMPTY] },
      /holds 49152, which is not in the vocabulary/,
    ],
    [
      "a prompt longer than the context",
      { prompt: Array(5000).fill(5), trees: [EMPTY] },
      /prompt has 5000 tokens/,
    ],
    ["top_k above 64", { prompt: "a", trees: [EMPTY], top_k: 65 }, /top_k = 65 is out of range \(0 to 64\)/],
    ["a negative top_k", { prompt: "a", trees: [EMPTY], top_k: -1 }, /top_k = -1 is out of range/],
    ["a top_k that is a text", { prompt: "a", trees: [EMPTY], top_k: "8" }, /top_k is not an integer/],
    ["an empty object", {}, /"prompts" \(or "prompt" and "trees"\) must be given/],
    ["an array", [], /not a JSON object/],
  ];

  it.each(cases)("%s", async (_name, body, message) => {
    await expectRefused(JSON.stringify(body), message);
  });

  it.each([
    ["an empty body", ""],
    ["half of a body", '{"prompt": "a", "trees": ['],
    ["no JSON", "prompt=a&trees=b"],
    ["bytes that are no text", Buffer.from([0xff, 0xfe, 0x00])],
    ["brackets without end", "[".repeat(100_000)],
  ])("%s", async (_name, body) => {
    await expectRefused(body, /the body is not valid JSON/);
  });

  afterAll(async () => {
    const [{ trees }] = (await verify({ prompt: TURNS[0], trees: [EMPTY] })).results;
    expect(trees[0].next).toBe(greedy[0][0]);
    expect(stack.engine.snapshot()).toMatchObject({ state: "ready", restarts: 0 });
  });

  async function expectRefused(body: string | Buffer, message: string | RegExp): Promise<void> {
    const headers = { "content-type": "application/json" };
    const answer = await stack.proxy.send("POST", "/tree-verify", { body, headers });
    const { error } = JSON.parse(answer.body.toString()) as { error: { message: string } };
    expect({ status: answer.status, error }).toMatchObject({
      status: 400,
      error: { code: 400, type: "invalid_request_error" },
    });
    if (typeof message === "string") expect(error.message).toBe(message);
    else expect(error.message).toMatch(message);
  }
});

async function tokenize(content: string): Promise<number[]> {
  const body = { content, add_special: true };
  return (await stack.proxy.post<{ tokens: number[] }>("/tokenize", body)).tokens;
}

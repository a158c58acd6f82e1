import { describe, expect, it } from "@jest/globals";
import type { VerifiedSlot } from "../../../../src/drafter/draft.ts";
import { LogitSpec } from "../../../../src/simulator/rules/logit-spec.ts";
import { Paper } from "../../../../src/simulator/rules/paper.ts";
import { peersFor } from "../../../../src/simulator/rules/peers.ts";
import { PromptLookup } from "../../../../src/simulator/rules/prompt-lookup.ts";
import { Racer } from "../../../../src/simulator/rules/racer.ts";
import type { Rule } from "../../../../src/simulator/rules/rule.ts";
import { RuleTree } from "../../../../src/simulator/rules/rule-tree.ts";
import { SamDecoding } from "../../../../src/simulator/rules/sam.ts";
import { SuffixDecoding } from "../../../../src/simulator/rules/suffix-decoding.ts";
import { rankRates, TokenRecycling } from "../../../../src/simulator/rules/token-recycling.ts";
import { textTrace } from "../support/traces.ts";

/** Verified nodes below a root, each with the model's likeliest tokens; the first `path.length` of them were accepted. */
function verified(
  accepted: number[],
  nodes: { token: number; parent: number; ids: number[] }[],
): VerifiedSlot {
  const k = Math.max(...nodes.map(({ ids }) => ids.length), 1);
  const ids = new Int32Array(nodes.length * k).fill(-1);
  const probs = new Float32Array(nodes.length * k);
  for (const [i, node] of nodes.entries()) {
    for (const [j, id] of node.ids.entries()) {
      ids[i * k + j] = id;
      probs[i * k + j] = 0.5 ** (j + 1);
    }
  }
  return {
    slot: 0,
    accepted: Int32Array.from(accepted),
    nodes: Int32Array.from(nodes, ({ token }) => token),
    parents: Int32Array.from(nodes, ({ parent }) => parent),
    path: Int32Array.from(accepted, (_, i) => i),
    k,
    ids,
    probs,
    room: 100,
    draft: true,
  };
}

/** One plain step: `root` was verified, the model's likeliest successors there are `ids`. */
function plain(token: number, root: number, ids: number[] = [token]): VerifiedSlot {
  return verified([token], [{ token: root, parent: -1, ids }]);
}

/** Draft as paths from the first level to each node, in the order of the nodes. */
function pathsOf(rule: Rule, nodes: number): string[] {
  const tree = new RuleTree();
  rule.draft(tree, nodes);
  return tree.tokens.map((_, i) => {
    const path: number[] = [];
    for (let at = i; at >= 0; at = tree.parents[at]) path.unshift(tree.tokens[at]);
    return path.join(" ");
  });
}

function begun(rule: Rule, prompt: number[]): Rule {
  rule.begin(Int32Array.from(prompt));
  return rule;
}

/** Runs a text through a rule without drafts. */
function read(rule: Rule, prompt: number[], output: number[]): void {
  rule.begin(Int32Array.from(prompt));
  let root = prompt[prompt.length - 1];
  for (const token of output) {
    rule.observe(plain(token, root));
    root = token;
  }
  rule.end();
}

describe("prompt lookup", () => {
  it("copies what followed the first occurrence of the longest of the last 3, 2, 1 tokens", () => {
    expect(pathsOf(begun(new PromptLookup(), [1, 2, 3, 7, 8, 2, 3, 9, 1, 2, 3]), 4)).toEqual([
      "7",
      "7 8",
      "7 8 2",
      "7 8 2 3",
    ]);
    // of (2, 3) the first occurrence, where (4, 2, 3) has none
    expect(pathsOf(begun(new PromptLookup(), [1, 2, 3, 7, 5, 2, 3, 9, 4, 2, 3]), 1)).toEqual(["7"]);
  });

  it("drafts nothing for a token that is new", () => {
    expect(pathsOf(begun(new PromptLookup(), [1, 2, 3]), 4)).toEqual([]);
  });
});

describe("Token Recycling", () => {
  const rates = [0.6, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01, 0.01];

  it("fills a static tree from the last top-k of each token, also of rejected nodes", () => {
    const rule = begun(new TokenRecycling(rates), [1]);
    rule.observe(
      verified(
        [2, 3],
        [
          { token: 1, parent: -1, ids: [2, 5] },
          { token: 2, parent: 0, ids: [3, 4] },
          { token: 5, parent: 0, ids: [6, 7] },
        ],
      ),
    );
    // nothing is known of 3, the root
    expect(pathsOf(rule, 5)).toEqual([]);
    rule.observe(plain(1, 3, [1, 5]));
    // rates of the places: 2 = .6, 2 3 = .36, 2 3 1 = .216, 5 = .2, 2 3 1 2 = .13, 5 6 = .12, 2 4 = .12 …
    expect(pathsOf(rule, 5)).toEqual(["2", "2 3", "2 3 1", "5", "2 3 1 2"]);
  });

  it("overwrites the row of a token with what was seen last", () => {
    const rule = begun(new TokenRecycling(rates), [1]);
    rule.observe(plain(1, 1, [8, 9]));
    expect(pathsOf(rule, 2)).toEqual(["8", "9"]);
    rule.observe(plain(1, 1, [7, 9]));
    expect(pathsOf(rule, 2)).toEqual(["7", "9"]);
  });

  it("never goes deeper than 6 levels", () => {
    const rule = begun(new TokenRecycling([0.9, 0.1, 0, 0, 0, 0, 0, 0]), [1]);
    rule.observe(plain(1, 1, [1]));
    expect(pathsOf(rule, 63)).toHaveLength(6);
  });

  it("measures the rates of ranks on the traces", () => {
    const rates = rankRates([
      textTrace("a", [1], [2, 1, 3, 1, 2], { rows: [[2, 3], [1], [3, 2], [1], [2, 3]] }),
    ]);
    expect(rates[1]).toBeGreaterThan(rates[2]);
  });
});

describe("SAM[TR]", () => {
  const rates = [0.6, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01, 0.01];
  const repeated = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5];

  it("copies after a match of 5 tokens, at most 40 of them", () => {
    expect(pathsOf(begun(new SamDecoding(rates), repeated), 3)).toEqual(["6", "6 7", "6 7 8"]);
    const long = [...Array.from({ length: 60 }, (_, i) => 100 + i), 100, 101, 102, 103, 104];
    expect(pathsOf(begun(new SamDecoding(rates), long), 63)).toHaveLength(40);
  });

  it("leaves shorter matches to Token Recycling", () => {
    const rule = begun(new SamDecoding(rates), repeated.slice(0, -2));
    expect(pathsOf(rule, 3)).toEqual([]);
    rule.observe(plain(4, 3, [4]));
    rule.observe(plain(3, 4, [3]));
    expect(pathsOf(rule, 3)).toEqual(["4", "4 3", "4 3 4"]);
  });

  it("counts a match in earlier outputs 5 tokens shorter", () => {
    const text = Array.from({ length: 24 }, (_, i) => 20 + i);
    const rule = new SamDecoding(rates);
    read(rule, [1], text);
    // 9 tokens match: Token Recycling, 6 levels
    expect(pathsOf(begun(rule, text.slice(0, 9)), 40)).toHaveLength(6);
    // 10 tokens match: all that followed
    expect(pathsOf(begun(rule, text.slice(0, 10)), 40)).toHaveLength(14);
  });
});

describe("SuffixDecoding", () => {
  it("drafts at most as many tokens as match, times the factor", () => {
    const prompt = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3];
    expect(pathsOf(begun(new SuffixDecoding(), prompt), 10)).toEqual(["4", "4 5", "4 5 6"]);
    expect(pathsOf(begun(new SuffixDecoding({ factor: 2 }), prompt), 10)).toHaveLength(6);
  });

  it("branches by how often each continuation was seen, down to a tenth", () => {
    const prompt = [1, 2, 3, 9, 1, 2, 3, 9, 1, 2, 4, 9, 1, 2];
    const paths = pathsOf(begun(new SuffixDecoding({ factor: 4 }), prompt), 10);
    expect(paths[0]).toBe("3");
    expect(paths).toContain("4");
    const rare = [...Array.from({ length: 12 }, () => [1, 2]).flat(), 1, 3, 1];
    expect(pathsOf(begun(new SuffixDecoding({ factor: 9 }), rare), 40)).not.toContain("3");
  });

  it("knows earlier outputs, but no earlier prompts", () => {
    const rule = new SuffixDecoding();
    read(rule, [50, 51, 52], [7, 8, 9]);
    expect(pathsOf(begun(rule, [1, 7, 8]), 4)).toEqual(["9"]);
    expect(pathsOf(begun(rule, [1, 50, 51]), 4)).toEqual([]);
  });
});

describe("LogitSpec", () => {
  it("takes the next tokens from where the last ones stood last, and guesses from the last top-k", () => {
    const rule = begun(new LogitSpec(), [1, 2, 5, 6, 1, 2, 7, 8, 20, 3]);
    rule.observe(verified([1], [{ token: 3, parent: -1, ids: [1, 6, 20] }]));
    rule.observe(verified([2], [{ token: 1, parent: -1, ids: [2, 20, 5] }]));
    expect(pathsOf(rule, 20)).toEqual([
      // after (1, 2) it was 7 last, six tokens of it
      "7",
      "7 8",
      "7 8 20",
      "7 8 20 3",
      "7 8 20 3 1",
      "7 8 20 3 1 2",
      // the guess 20 and what followed it
      "20",
      "20 3",
      "20 3 1",
      "20 3 1 2",
      // the guess 5 with what followed (1, 2, 5)
      "5",
      "5 6",
      "5 6 1",
      "5 6 1 2",
    ]);
  });

  it("drafts fewer tokens after unlikely guesses", () => {
    const rule = begun(new LogitSpec(), [30, 31, 32, 33, 34, 9]);
    const ids = Array.from({ length: 40 }, (_, i) => 100 + i);
    ids[20] = 30;
    ids[39] = 31;
    rule.observe(verified([8], [{ token: 9, parent: -1, ids }]));
    const paths = pathsOf(rule, 63);
    expect(paths.filter((path) => path.startsWith("30"))).toEqual(["30", "30 31", "30 31 32"]);
    expect(paths.filter((path) => path.startsWith("31"))).toEqual(["31"]);
  });
});

describe("RACER", () => {
  it("takes what followed matches of two tokens and more, the most frequent first", () => {
    const rule = begun(new Racer(), [1, 2, 3, 1, 2, 3, 1, 2, 4, 1, 2]);
    const paths = pathsOf(rule, 4);
    expect(paths.slice(0, 2)).toEqual(["3", "3 1"]);
    expect(pathsOf(rule, 8)).toContain("4");
  });

  it("fills the rest from the table, the breadth halved by rank and level", () => {
    const rule = begun(new Racer(), [1]);
    const row = [10, 11, 12, 13, 14, 15, 16, 17];
    rule.observe(plain(1, 1, row));
    rule.observe(verified([10], [{ token: 1, parent: -1, ids: row }]));
    rule.observe(plain(1, 10, [20, 21, 22, 23, 24, 25, 26, 27]));
    // 8 children of the root, 4 of the likeliest of them, 2 of the next …: only 10 is known of these
    expect(pathsOf(rule, 63)).toEqual([...row.map(String), "10 20", "10 21", "10 22", "10 23"]);
  });

  it("lets matches go before the table, as far as they may", () => {
    const rule = begun(new Racer({ share: 0.5 }), [1, 2, 3, 4, 5, 6, 1]);
    rule.observe(plain(2, 1, [2]));
    rule.observe(plain(9, 2, [9, 8, 7, 6]));
    rule.begin(Int32Array.from([1, 2, 3, 4, 5, 6, 1, 2]));
    expect(pathsOf(rule, 4).filter((path) => path.startsWith("3"))).toHaveLength(2);
  });

  it("forgets what stood too far back", () => {
    const rule = begun(new Racer({ memory: 5 }), [1, 2, 3, 9, 9, 9, 9, 9, 1, 2]);
    expect(pathsOf(rule, 2)).toEqual([]);
  });
});

describe("the paper's rule", () => {
  it("drafts from tri-gram counts of earlier outputs, at most 4 deep", () => {
    const rule = new Paper();
    read(rule, [1, 2], [3, 4, 5, 6, 7, 8]);
    const paths = pathsOf(begun(rule, [2, 3]), 10);
    expect(paths).toEqual(["4", "4 5", "4 5 6", "4 5 6 7"]);
  });

  it("boosts the tri-grams of the last 16 tokens at every search", () => {
    const rule = new Paper();
    read(rule, [1, 2], [3]);
    read(rule, [1, 2], [3]);
    begun(rule, [1, 2, 7, 1, 2]);
    expect(pathsOf(rule, 2)).toEqual(["3", "7"]);
    // 25 times 0.04 more weigh as much as all counts of the row together
    for (let i = 0; i < 40; i++) pathsOf(rule, 1);
    expect(pathsOf(rule, 1)).toEqual(["7"]);
    // too far back
    const far = [1, 2, 7, ...Array.from({ length: 16 }, (_, i) => 50 + i), 1, 2];
    expect(pathsOf(begun(new Paper(), far), 4)).toEqual([]);
  });

  it("can take its rows from the model's distributions instead", () => {
    const rule = begun(new Paper({ distributions: true }), [1, 2]);
    rule.observe(plain(3, 2, [3, 4]));
    rule.observe(plain(1, 3, [1]));
    rule.observe(plain(2, 1, [2]));
    expect(pathsOf(rule, 4)).toEqual(expect.arrayContaining(["3", "4"]));
  });
});

describe("all rules", () => {
  const text = textTrace("t", [1, 2, 3], [4, 1, 2, 3, 4, 1, 2, 3, 4], {});

  it("never draft more than they may, never the same child twice, parents first", () => {
    for (const { name, variants } of peersFor([text])) {
      for (const { create } of variants) {
        for (const nodes of [1, 3, 7, 63]) {
          const rule = create();
          for (let round = 0; round < 2; round++) {
            rule.begin(text.prompt);
            let root = 3;
            for (const token of text.tokens) {
              rule.observe(plain(token, root, [token, 9, 10, 11, 12, 13, 14, 15]));
              root = token;
              const tree = new RuleTree();
              rule.draft(tree, nodes);
              const { tokens, parents } = tree.first(nodes);
              expect(tokens.length).toBeLessThanOrEqual(nodes);
              const children = new Set(Array.from(tokens, (child, i) => `${parents[i]} ${child}`));
              expect({ name, distinct: children.size }).toEqual({ name, distinct: tokens.length });
              for (const [i, parent] of parents.entries()) expect(parent).toBeLessThan(i);
            }
            rule.end();
          }
        }
      }
    }
  });
});

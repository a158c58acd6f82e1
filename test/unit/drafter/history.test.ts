import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { HISTORY_TOKEN_BYTES, History } from "../../../src/drafter/history.ts";
import { MemoryBudget } from "../../../src/drafter/memory-budget.ts";
import { SuffixIndex } from "../../../src/drafter/suffix-index.ts";
import type { SuffixMatches } from "../../../src/drafter/token-index.ts";

const MIB = 2 ** 20;

function textOf(tokens: readonly number[]): SuffixIndex {
  const index = new SuffixIndex();
  for (const token of tokens) index.append(token);
  return index;
}

function followers(history: History, context: readonly number[]): number[] {
  const n = 8;
  const out: SuffixMatches = {
    count: 0,
    token: new Int32Array(n),
    length: new Int32Array(n),
    share: new Float32Array(n),
    longest: 0,
  };
  const newestFirst = Int32Array.from([...context].reverse());
  history.match(newestFirst, newestFirst.length, out);
  return [...out.token.subarray(0, out.count)];
}

describe("History", () => {
  it("knows what followed in earlier outputs, and nothing across their ends", () => {
    const history = new History(new MemoryBudget(MIB));
    history.add(textOf([9, 9, 1, 2, 3, 4]), 2, 4);
    history.add(textOf([5, 6, 7]), 0, 3);
    expect(followers(history, [1, 2, 3])).toEqual([4]);
    expect(followers(history, [9, 1, 2])).toEqual([]);
    expect(followers(history, [2, 3, 4])).toEqual([]);
  });

  it("holds the newest tokens within its bound, and forgets the oldest", () => {
    const budget = new MemoryBudget(MIB);
    const history = new History(budget, { tokens: 2048 });
    for (let text = 0; text < 400; text++) {
      history.add(textOf(Array.from({ length: 20 }, (_, i) => text * 20 + i)), 0, 20);
      expect(budget.used).toBeLessThanOrEqual(2048 * HISTORY_TOKEN_BYTES);
    }
    expect(history.bytes).toBe(2048 * HISTORY_TOKEN_BYTES);
    expect(followers(history, [399 * 20, 399 * 20 + 1, 399 * 20 + 2])).toEqual([399 * 20 + 3]);
    expect(followers(history, [20, 21, 22])).toEqual([]);
    expect(history.checkIntegrity()).toEqual([]);
  });

  it("makes do with what the budget gives, be it nothing", () => {
    const none = new History(new MemoryBudget(10));
    none.add(textOf([1, 2, 3, 4]), 0, 4);
    expect(none.length).toBe(0);
    expect(followers(none, [1, 2, 3])).toEqual([]);
    const little = new MemoryBudget(1024 * HISTORY_TOKEN_BYTES);
    const history = new History(little);
    history.add(textOf(Array.from({ length: 5000 }, (_, i) => i)), 0, 5000);
    expect(little.used).toBeLessThanOrEqual(little.limit);
    expect(history.checkIntegrity()).toEqual([]);
    history.clear();
    expect(little.used).toBe(0);
  });

  it("finds exactly what a plain search over the same texts finds", () => {
    const text = fc.array(fc.nat(4), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(
        fc.array(text, { maxLength: 12 }),
        fc.array(fc.nat(4), { maxLength: 8 }),
        (texts, context) => {
          const history = new History(new MemoryBudget(MIB), { tokens: 1024 });
          for (const tokens of texts) history.add(textOf(tokens), 0, tokens.length);
          expect(history.checkIntegrity()).toEqual([]);
          const possible = new Set<number>();
          const last = context.slice(-3).join();
          for (const tokens of texts) {
            for (let i = 3; i < tokens.length; i++) {
              if (tokens.slice(i - 3, i).join() === last) possible.add(tokens[i]);
            }
          }
          const found = followers(history, context);
          for (const token of found) expect(possible).toContain(token);
          if (context.length >= 3) expect(found.length > 0).toBe(possible.size > 0);
          else expect(found).toEqual([]);
        },
      ),
    );
  });

  it("keeps its chains whole when it grows and when it wraps", () => {
    const history = new History(new MemoryBudget(MIB), { tokens: 4096 });
    let h = 1;
    for (let i = 0; i < 30_000; i++) {
      h = Math.imul(h ^ i, 0x9e3779b1);
      history.append((h >>> 20) % 50);
      if (i % 3000 === 0) expect(history.checkIntegrity()).toEqual([]);
    }
  });
});

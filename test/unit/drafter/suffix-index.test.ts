import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { SuffixIndex } from "../../../src/drafter/suffix-index.ts";
import type { SuffixMatches } from "../../../src/drafter/token-index.ts";

function room(n = 8): SuffixMatches {
  return {
    count: 0,
    token: new Int32Array(n),
    length: new Int32Array(n),
    share: new Float32Array(n),
    longest: 0,
  };
}

function indexOf(tokens: readonly number[]): SuffixIndex {
  const index = new SuffixIndex();
  for (const token of tokens) index.append(token);
  return index;
}

function matchEnd(index: SuffixIndex, extra: readonly number[] = []): SuffixMatches {
  const context: number[] = [...extra].reverse();
  for (let i = index.length - 1; i >= 0 && context.length < 16; i--) context.push(index.at(i));
  const out = room();
  index.match(Int32Array.from(context), context.length, out);
  return out;
}

describe("SuffixIndex", () => {
  it("names what followed the last two tokens before", () => {
    const out = matchEnd(indexOf([1, 2, 3, 9, 1, 2]));
    expect([...out.token.subarray(0, out.count)]).toEqual([3]);
    expect(out.length[0]).toBe(2);
    expect(out.share[0]).toBe(1);
  });

  it("prefers the longer match and still names the other", () => {
    const out = matchEnd(indexOf([5, 6, 1, 2, 3, 9, 1, 2, 4, 8, 5, 6, 1, 2]));
    expect([...out.token.subarray(0, out.count)]).toEqual([3, 4]);
    expect([...out.length.subarray(0, out.count)]).toEqual([4, 2]);
  });

  it("weighs by frequency, then by recency", () => {
    const frequent = matchEnd(indexOf([1, 2, 3, 1, 2, 3, 1, 2, 3, 9, 1, 2, 4, 7, 1, 2]));
    expect(frequent.token[0]).toBe(3);
    const recent = matchEnd(indexOf([8, 1, 2, 3, 7, 1, 2, 4, 9, 1, 2]));
    expect(recent.token[0]).toBe(4);
  });

  it("follows a path that was drafted but not yet emitted", () => {
    const out = matchEnd(indexOf([1, 2, 3, 4, 9, 1]), [2, 3]);
    expect([...out.token.subarray(0, out.count)]).toEqual([4]);
    expect(out.length[0]).toBe(3);
  });

  it("finds an old long match behind many recent short ones", () => {
    const tokens = [11, 12, 13, 1, 2, 77];
    for (let i = 0; i < 50; i++) tokens.push(100 + i, 1, 2, 88);
    tokens.push(11, 12, 13, 1, 2);
    const out = matchEnd(indexOf(tokens));
    expect(out.token[0]).toBe(77);
    expect(out.length[0]).toBe(5);
  });

  it("names what followed the last token alone, after what followed longer matches", () => {
    const one = matchEnd(indexOf([2, 3, 9, 2]));
    expect([...one.token.subarray(0, one.count)]).toEqual([3]);
    expect(one.length[0]).toBe(1);
    const both = matchEnd(indexOf([1, 2, 3, 8, 2, 4, 1, 2]));
    expect([...both.token.subarray(0, both.count)]).toEqual([3, 4]);
    expect([...both.length.subarray(0, both.count)]).toEqual([2, 1]);
  });

  it("tells how long ago a token stood, also after truncation", () => {
    const index = indexOf([4, 5, 4, 6, 7]);
    expect([7, 4, 5, 8].map((token) => index.ago(token))).toEqual([0, 2, 3, -1]);
    index.truncate(2);
    expect([5, 4, 6].map((token) => index.ago(token))).toEqual([0, 1, -1]);
  });

  it("matches nothing on fewer than two tokens", () => {
    expect(matchEnd(indexOf([])).count).toBe(0);
    expect(matchEnd(indexOf([4])).count).toBe(0);
  });

  it("never names a token that it does not know", () => {
    const index = indexOf([1, 2]);
    index.truncate(4);
    for (const token of [1, 2]) index.append(token);
    expect(index.length).toBe(6);
    expect(matchEnd(index).count).toBe(0);
  });

  it("after truncation and appending equals one that was built at once", () => {
    const tokens = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 600 });
    fc.assert(
      fc.property(tokens, fc.nat(600), tokens, (first, keep, second) => {
        const edited = indexOf(first);
        const kept = Math.min(keep, first.length);
        edited.truncate(kept);
        for (const token of second) edited.append(token);
        const fresh = indexOf([...first.slice(0, kept), ...second]);
        expect(edited.length).toBe(fresh.length);
        expect(matchEnd(edited)).toEqual(matchEnd(fresh));
      }),
      { numRuns: 100 },
    );
  });

  it("names only tokens that really followed the match that it claims", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 3, maxLength: 200 }), (tokens) => {
        const out = matchEnd(indexOf(tokens));
        let sum = 0;
        for (let i = 0; i < out.count; i++) {
          const length = out.length[i];
          const wanted = tokens.slice(tokens.length - length).join();
          const followed = tokens.some(
            (token, at) =>
              at >= length && token === out.token[i] && tokens.slice(at - length, at).join() === wanted,
          );
          expect(followed).toBe(true);
          sum += out.share[i];
        }
        if (out.count > 0) expect(sum).toBeCloseTo(1, 4);
      }),
      { numRuns: 100 },
    );
  });

  it("keeps its chains whole through any appends and truncations", () => {
    const action = fc.oneof(
      fc.record({ append: fc.array(fc.nat(6), { minLength: 1, maxLength: 60 }) }),
      fc.record({ keep: fc.double({ min: 0, max: 1, noNaN: true }) }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 25 }), (actions) => {
        const index = new SuffixIndex();
        const text: number[] = [];
        for (const act of actions) {
          if ("append" in act) {
            for (const token of act.append) index.append(token);
            text.push(...act.append);
          } else {
            text.length = Math.floor(text.length * act.keep);
            index.truncate(text.length);
          }
        }
        expect(Array.from({ length: index.length }, (_, i) => index.at(i))).toEqual(text);
        expect(index.checkIntegrity()).toEqual([]);
      }),
    );
  });
});

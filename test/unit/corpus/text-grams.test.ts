import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { GramCounter } from "../../../src/corpus/gram-counter.ts";
import { pieceEnd, TextGrams } from "../../../src/corpus/text-grams.ts";
import type { TextTokenizer } from "../../../src/corpus/tokenizer.ts";

/** One token per UTF-16 unit: where pieces are cut can't matter. */
const units: TextTokenizer = {
  tokenize: (text) => Array.from({ length: text.length }, (_, i) => text.charCodeAt(i)),
  detokenize: (ids) => String.fromCharCode(...ids),
  dispose: async () => {},
};

describe("3-grams of a text", () => {
  it("are counted across pieces and across full tables", async () => {
    const text = fc.array(fc.constantFrom("ab", " c", "\n", "d e", "ééé", "😀"), { maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(text, async (words) => {
        // long enough for several pieces
        const whole = words.join("").repeat(200);
        const counts = new Map<string, number>();
        const counter = new GramCounter(5);
        const drain = async (): Promise<void> =>
          counter.drain((a, b, c, n) => {
            const key = String.fromCharCode(a, b, c);
            counts.set(key, (counts.get(key) ?? 0) + n);
          });
        const grams = new TextGrams(units, counter, { whenFull: drain });
        await grams.add(whole, false);
        await drain();
        const expected = new Map<string, number>();
        for (let i = 2; i < whole.length; i++) {
          const key = whole.slice(i - 2, i + 1);
          expected.set(key, (expected.get(key) ?? 0) + 1);
        }
        expect(counts).toEqual(expected);
        expect(grams.tokens).toBe(whole.length);
        expect(grams.grams).toBe(Math.max(0, whole.length - 2));
      }),
      { numRuns: 50 },
    );
  });

  it("never cross from one text into the next", async () => {
    const counter = new GramCounter(5);
    const grams = new TextGrams(units, counter, { whenFull: async () => {} });
    await grams.add("ab", false);
    await grams.add("cd", false);
    expect(counter.size).toBe(0);
  });
});

describe("where a piece ends", () => {
  it("is between two words, looking back first and then ahead", () => {
    expect(pieceEnd("aaaa bbbb cccc", 0, 10)).toBe(9);
    expect(pieceEnd("aaaa bbbb cccc", 0, 8)).toBe(4);
    expect(pieceEnd("aaaa\n\nbbbb. cc (cc) éé ßß", 0, 12)).toBe(25);
    expect(pieceEnd("short one", 0, 10)).toBe(9);
  });

  it("is between two characters where there are no words", () => {
    expect(pieceEnd("a".repeat(500), 0, 6)).toBe(64 * 6);
    expect(pieceEnd("😀".repeat(500), 0, 7)).toBe(64 * 7);
    expect(pieceEnd(`a${"😀".repeat(500)}`, 0, 6)).toBe(64 * 6 - 1);
  });

  it("always moves on, and never splits a character", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme", maxLength: 80 }),
        fc.integer({ min: 2, max: 20 }),
        (text, most) => {
          let pieces = "";
          for (let from = 0; from < text.length; ) {
            const end = pieceEnd(text, from, most);
            expect(end).toBeGreaterThan(from);
            pieces += Buffer.from(text.slice(from, end)).toString();
            from = end;
          }
          expect(pieces).toBe(Buffer.from(text).toString());
        },
      ),
    );
  });
});

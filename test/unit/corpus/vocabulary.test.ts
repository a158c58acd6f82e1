import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { vocabularyHash } from "../../../src/corpus/vocabulary.ts";

/** The same by the book: FNV-1a with whole 64-bit numbers. */
function referenceHash(tokens: readonly string[]): string {
  let hash = 0xcbf29ce484222325n;
  for (const token of tokens) {
    const bytes = Buffer.from(token.split("\0")[0]);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    for (const byte of [...length, ...bytes]) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    }
  }
  return hash.toString(16).padStart(16, "0");
}

describe("the vocabulary's hash", () => {
  it("of no tokens is FNV-1a's start value", () => {
    expect(vocabularyHash([])).toBe("cbf29ce484222325");
  });

  it("is FNV-1a over the length-prefixed texts of the tokens", () => {
    const tokens = fc.array(fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }), { maxLength: 50 });
    fc.assert(fc.property(tokens, (list) => expect(vocabularyHash(list)).toBe(referenceHash(list))));
  });

  it("names empty tokens as the engine does", () => {
    expect(vocabularyHash(["a", ""])).toBe(referenceHash(["a", "[EMPTY_1]"]));
  });
});

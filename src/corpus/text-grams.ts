/** From a text to counted 3-grams: cuts it where tokens end anyway, tokenises piece by piece, and counts across the pieces. */
import type { GramCounter } from "./gram-counter.ts";
import type { TextTokenizer } from "./tokenizer.ts";

/** Characters given to the tokenizer at a time: some tokenizers get slower with the length of the text. */
const PIECE_CHARS = 16_384;

export class TextGrams {
  readonly #tokenizer: TextTokenizer;
  readonly #counter: GramCounter;
  readonly #whenFull: () => Promise<void>;
  /** Tokens counted so far. */
  tokens = 0;
  /** 3-grams counted so far. */
  grams = 0;

  /** @param whenFull has to empty the counter */
  constructor(tokenizer: TextTokenizer, counter: GramCounter, whenFull: () => Promise<void>) {
    this.#tokenizer = tokenizer;
    this.#counter = counter;
    this.#whenFull = whenFull;
  }

  /** Counts one text. @param special as for `TextTokenizer.tokenize` */
  async add(text: string, special: boolean): Promise<void> {
    const counter = this.#counter;
    let a = -1;
    let b = -1;
    let from = 0;
    while (from < text.length) {
      const end = pieceEnd(text, from, PIECE_CHARS);
      const continues = from > 0 && text.charCodeAt(from - 1) === 10;
      const ids = this.#tokenizer.tokenize(text.slice(from, end), special, continues);
      for (let i = 0; i < ids.length; i++) {
        const c = ids[i];
        if (a >= 0) {
          counter.add(a, b, c);
          this.grams++;
        }
        a = b;
        b = c;
        if (counter.full) await this.#whenFull();
      }
      this.tokens += ids.length;
      from = end;
    }
  }
}

/**
 * Where to end the piece that begins at `from`: before a line that begins with no white space, since no tokenizer joins it with
 * the line end before; or else before a word; or else between two characters.
 */
export function pieceEnd(text: string, from: number, most: number): number {
  const limit = from + most;
  if (limit >= text.length) return text.length;
  for (let at = limit; at > from; at--) {
    if (text.charCodeAt(at - 1) === 10 && !isSpace(text.charCodeAt(at))) return at;
  }
  for (let at = limit; at > from; at--) {
    if (text.charCodeAt(at) === 32 && !isSpace(text.charCodeAt(at - 1)) && !isSpace(text.charCodeAt(at + 1)))
      return at;
  }
  const unit = text.charCodeAt(limit);
  return unit >= 0xdc00 && unit <= 0xdfff && limit - 1 > from ? limit - 1 : limit;
}

function isSpace(unit: number): boolean {
  return unit === 32 || (unit >= 9 && unit <= 13) || unit === 160 || unit === 0x2028 || unit === 0x2029;
}

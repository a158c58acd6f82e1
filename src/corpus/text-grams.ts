/** From a text to counted 3-grams: cuts it where tokens end anyway, tokenises piece by piece, and counts across the pieces. */
import type { GramCounter } from "./gram-counter.ts";
import type { TextTokenizer } from "./tokenizer.ts";

/** Characters given to the tokenizer at a time: some tokenizers get slower with the length of the text. */
export const PIECE_CHARS = 16_384;
/** How many pieces long one may get to end between words. */
const AHEAD_PIECES = 64;

export interface TextGramsOptions {
  /** Has to empty the counter. */
  whenFull(): Promise<void>;
  /** True: the rest of a text need not be counted. @default never */
  isStopped?(): boolean;
}

export class TextGrams {
  readonly #tokenizer: TextTokenizer;
  readonly #counter: GramCounter;
  readonly #options: TextGramsOptions;
  /** Tokens counted so far. */
  tokens = 0;
  /** 3-grams counted so far. */
  grams = 0;

  constructor(tokenizer: TextTokenizer, counter: GramCounter, options: TextGramsOptions) {
    this.#tokenizer = tokenizer;
    this.#counter = counter;
    this.#options = options;
  }

  /** Counts one text. @param special as for `TextTokenizer.tokenize` */
  async add(text: string, special: boolean): Promise<void> {
    const counter = this.#counter;
    const { isStopped, whenFull } = this.#options;
    let a = -1;
    let b = -1;
    let from = 0;
    while (from < text.length && !isStopped?.()) {
      const end = pieceEnd(text, from, PIECE_CHARS);
      const ids = this.#tokenizer.tokenize(text.slice(from, end), special, from > 0);
      for (let i = 0; i < ids.length; i++) {
        const c = ids[i];
        if (a >= 0) {
          counter.add(a, b, c);
          this.grams++;
        }
        a = b;
        b = c;
        if (counter.full) await whenFull();
      }
      this.tokens += ids.length;
      from = end;
    }
  }
}

/**
 * Where to end the piece that begins at `from`: between two words, because no tokenizer joins a letter with the space after it, and what
 * stands before does not depend on what follows. Looks back first, then ahead; a text without words is cut between two characters.
 */
export function pieceEnd(text: string, from: number, most: number): number {
  const limit = from + most;
  if (limit >= text.length) return text.length;
  for (let at = limit; at > from; at--) if (isBetweenWords(text, at)) return at;
  const last = from + AHEAD_PIECES * most;
  if (last >= text.length) return text.length;
  for (let at = limit; at < last; at++) if (isBetweenWords(text, at)) return at;
  const unit = text.charCodeAt(last);
  return unit >= 0xdc00 && unit <= 0xdfff ? last - 1 : last;
}

function isBetweenWords(text: string, at: number): boolean {
  return text.charCodeAt(at) === 32 && isLetter(text, at - 1) && isLetter(text, at + 1);
}

function isLetter(text: string, at: number): boolean {
  const unit = text.charCodeAt(at) | 0x20;
  return (unit >= 97 && unit <= 122) || (unit > 127 && /^\p{L}$/u.test(text[at]));
}

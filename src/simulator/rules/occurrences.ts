/** Texts, and where tokens occur in them: what count tries over n-grams know, without building them. */

/** Positions after one occurrence each of some string. */
export type Occurrences = readonly number[];

export class OccurrenceIndex {
  readonly tokens: number[] = [];
  private readonly after = new Map<number, number[]>();

  append(token: number): void {
    this.tokens.push(token);
    const list = this.after.get(token);
    if (list === undefined) this.after.set(token, [this.tokens.length]);
    else list.push(this.tokens.length);
  }

  /**
   * For n = 1, 2, … `longest`: where the last n tokens of a text occur, as long as they do.
   *
   * @param last the text's last tokens, newest first
   */
  matches(last: readonly number[], longest: number): Occurrences[] {
    const found: Occurrences[] = [];
    let at: Occurrences = last.length > 0 ? (this.after.get(last[0]) ?? []) : [];
    for (let n = 1; n <= longest && n <= last.length; n++) {
      if (n > 1) at = at.filter((end) => this.tokens[end - n] === last[n - 1]);
      // an occurrence at the very end of the texts has nothing after it
      if (!at.some((end) => end < this.tokens.length)) break;
      found.push(at);
    }
    return found;
  }

  /** What follows the occurrences, by token; negative tokens end a text. */
  continuations(at: Occurrences): Map<number, number[]> {
    const next = new Map<number, number[]>();
    for (const end of at) {
      const token = this.tokens[end];
      if (token === undefined || token < 0) continue;
      const list = next.get(token);
      if (list === undefined) next.set(token, [end + 1]);
      else list.push(end + 1);
    }
    return next;
  }
}

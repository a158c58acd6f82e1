/**
 * A suffix automaton, grown token by token (A. Blumer et al., 1985): knows every substring of a text, where each ended first, and the longest suffix
 * of the text that occurred before.
 */
export class SuffixAutomaton {
  private readonly next: Map<number, number>[] = [new Map()];
  private readonly link: number[] = [-1];
  private readonly length: number[] = [0];
  /** Position after the first occurrence of a state's strings. */
  private readonly end: number[] = [0];
  private last = 0;
  /** The text. */
  readonly tokens: number[] = [];

  append(token: number): void {
    this.tokens.push(token);
    const at = this.add(this.length[this.last] + 1, this.tokens.length, new Map());
    let from = this.last;
    while (from >= 0 && !this.next[from].has(token)) {
      this.next[from].set(token, at);
      from = this.link[from];
    }
    this.last = at;
    if (from < 0) {
      this.link[at] = 0;
      return;
    }
    const to = this.next[from].get(token)!;
    if (this.length[to] === this.length[from] + 1) {
      this.link[at] = to;
      return;
    }
    const clone = this.add(this.length[from] + 1, this.end[to], new Map(this.next[to]));
    this.link[clone] = this.link[to];
    while (from >= 0 && this.next[from].get(token) === to) {
      this.next[from].set(token, clone);
      from = this.link[from];
    }
    this.link[to] = clone;
    this.link[at] = clone;
  }

  /** The longest suffix of the text that occurred before: its length, and the position after its first occurrence. */
  repeated(): { length: number; end: number } {
    const state = Math.max(0, this.link[this.last]);
    return { length: this.length[state], end: this.end[state] };
  }

  /** Moves a match of some other text along by one token. */
  advance(match: AutomatonMatch, token: number): void {
    while (match.state > 0 && !this.next[match.state].has(token)) {
      match.state = this.link[match.state];
      match.length = this.length[match.state];
    }
    const to = this.next[match.state].get(token);
    if (to === undefined) return;
    match.state = to;
    match.length++;
    match.end = this.end[to];
  }

  private add(length: number, end: number, next: Map<number, number>): number {
    this.next.push(next);
    this.link.push(0);
    this.length.push(length);
    this.end.push(end);
    return this.next.length - 1;
  }
}

/** The longest suffix of some text that occurs in an automaton's. */
export class AutomatonMatch {
  state = 0;
  length = 0;
  /** Position after its first occurrence. */
  end = 0;
}

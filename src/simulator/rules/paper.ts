/**
 * The rule of ADED's own retriever (arXiv 2407.12021; crate draftretriever 0.1.1): tri-gram counts, cut to 12 successors per row and normalised; each
 * tri-gram among the last 16 tokens adds 0.04 (up to 3.0 in all) to its row at every search; a Monte-Carlo search of 150 iterations, at most 4 deep, by
 *
 *     s/v + (c1 + ln((N + c2 + 1) / c2)) * p * sqrt(N) / (1 + v),   c1 = 32, c2 = 8, unvisited first;
 *
 * the 24 most visited sequences, merged and cut, the deepest last. The counts are those of the earlier outputs of the replay: there is no corpus at a cold start.
 */
import type { VerifiedSlot } from "../../drafter/draft.ts";
import type { Rule } from "./rule.ts";
import type { RuleTree } from "./rule-tree.ts";

const WIDTH = 12;
const WINDOW = 16;
const BOOST = 0.04;
const MOST_BOOST = 3;
const C1 = 32;
const C2 = 8;
const ITERATIONS = 150;
const DEEPEST = 4;
const SEQUENCES = 24;
const SPAN = 2 ** 21;

export interface PaperOptions {
  /**
   * Take the rows from the model's own distributions at every verified node, as the paper (not the crate) says, instead of from counts.
   * @default false
   */
  distributions?: boolean;
}

interface Row {
  counts: Map<number, number>;
  boosts: Map<number, number>;
}

interface Node {
  token: number;
  prior: number;
  visits: number;
  score: number;
  children?: Node[];
}

export class Paper implements Rule {
  private readonly distributions: boolean;
  private readonly rows = new Map<number, Row>();
  private text: number[] = [];
  private outputFrom = 0;

  constructor(options: PaperOptions = {}) {
    this.distributions = options.distributions ?? false;
  }

  begin(prompt: Int32Array): void {
    this.text = [...prompt];
    this.outputFrom = this.text.length;
  }

  observe(verified: VerifiedSlot): void {
    if (this.distributions) this.learn(verified);
    this.text.push(...verified.accepted);
  }

  draft(tree: RuleTree, nodes: number): void {
    const { text } = this;
    for (let end = Math.max(2, text.length - WINDOW + 2); end < text.length; end++) {
      const { boosts } = this.row(text[end - 2], text[end - 1]);
      boosts.set(text[end], Math.min(MOST_BOOST, (boosts.get(text[end]) ?? 0) + BOOST));
    }
    const root: Node = { token: text[text.length - 1], prior: 1, visits: 0, score: 0 };
    for (let i = 0; i < ITERATIONS; i++) this.iterate(root, text[text.length - 2] ?? -1);
    const sequences = sequencesOf(root).slice(0, SEQUENCES);
    // the deepest level goes first when there is no room
    for (let depth = 1; depth <= DEEPEST; depth++) {
      for (const tokens of sequences) tree.chain(tokens.slice(0, depth), nodes);
    }
  }

  end(): void {
    if (this.distributions) return;
    const { text } = this;
    for (let end = Math.max(2, this.outputFrom); end < text.length; end++) {
      const { counts } = this.row(text[end - 2], text[end - 1]);
      counts.set(text[end], (counts.get(text[end]) ?? 0) + 1);
    }
  }

  /** Moves the rows of the verified nodes half-way to what the model said there. */
  private learn(verified: VerifiedSlot): void {
    const { nodes, parents, ids, probs, k } = verified;
    for (let i = 0; i < nodes.length; i++) {
      if (!(probs[i * k] > 0)) continue;
      const before = parents[i] < 0 ? this.text[this.text.length - 2] : nodes[parents[i]];
      if (before === undefined) continue;
      const { counts } = this.row(before, nodes[i]);
      for (const [token, p] of counts) counts.set(token, p / 2);
      for (let j = 0; j < Math.min(k, WIDTH); j++) {
        const token = ids[i * k + j];
        counts.set(token, (counts.get(token) ?? 0) + probs[i * k + j] / 2);
      }
    }
  }

  private row(a: number, b: number): Row {
    const key = (a + 1) * SPAN + b;
    let row = this.rows.get(key);
    if (row === undefined) {
      row = { counts: new Map(), boosts: new Map() };
      this.rows.set(key, row);
    }
    return row;
  }

  /** The likeliest successors of two tokens, and their probabilities. */
  private expand(a: number, b: number): Node[] {
    const row = this.rows.get((a + 1) * SPAN + b);
    if (row === undefined) return [];
    const likeliest = [...row.counts].sort((x, y) => y[1] - x[1]).slice(0, WIDTH);
    const total = likeliest.reduce((sum, [, n]) => sum + n, 0);
    const weights = new Map(likeliest.map(([token, n]) => [token, n / total]));
    for (const [token, boost] of row.boosts) weights.set(token, (weights.get(token) ?? 0) + boost);
    let all = 0;
    for (const weight of weights.values()) all += weight;
    return [...weights].map(([token, weight]) => ({ token, prior: weight / all, visits: 0, score: 0 }));
  }

  private iterate(root: Node, before: number): void {
    const path = [root];
    let node = root;
    let a = before;
    while (path.length <= DEEPEST) {
      node.children ??= this.expand(a, node.token);
      if (node.children.length === 0) break;
      const chosen = choose(node);
      path.push(chosen);
      a = node.token;
      node = chosen;
      if (chosen.visits === 0) break;
    }
    let value = 1;
    for (const visited of path) value *= visited.prior;
    for (const visited of path) {
      visited.visits++;
      visited.score += value;
    }
  }
}

function choose(node: Node): Node {
  const children = node.children!;
  let best = children[0];
  let bestScore = Number.NEGATIVE_INFINITY;
  const weight = (C1 + Math.log((node.visits + C2 + 1) / C2)) * Math.sqrt(node.visits);
  for (const child of children) {
    // of the unvisited ones the likeliest
    const score =
      child.visits === 0
        ? 1e9 + child.prior
        : child.score / child.visits + (weight * child.prior) / (1 + child.visits);
    if (score > bestScore) {
      bestScore = score;
      best = child;
    }
  }
  return best;
}

/** The paths to all visited nodes without visited children, most visited first. */
function sequencesOf(root: Node): number[][] {
  const found: { tokens: number[]; visits: number }[] = [];
  const walk = (node: Node, tokens: number[]): void => {
    const visited = node.children?.filter((child) => child.visits > 0) ?? [];
    if (visited.length === 0 && tokens.length > 0) found.push({ tokens, visits: node.visits });
    for (const child of visited) walk(child, [...tokens, child.token]);
  };
  walk(root, []);
  return found.sort((a, b) => b.visits - a.visits).map(({ tokens }) => tokens);
}

/**
 * Asks an engine about rejected nodes that the traces know nothing of. Nodes of one text share its beginning, so that many of them fit into one
 * tree: its trunk is the text itself, what is asked for branches off it.
 */
import { OffPath } from "./off-path.ts";
import type { MissingNode } from "./replay.ts";
import type { Trace } from "./trace.ts";

/** What the model says after each node of a tree below a prompt (`POST /tree-verify`). */
export interface TreeAnswer {
  /** Likeliest successors of each node. Length nodes * k. */
  ids: Int32Array;
  probs: Float32Array;
}

export type VerifyTree = (
  prompt: Int32Array,
  tree: { tokens: Int32Array; parents: Int32Array },
  k: number,
) => Promise<TreeAnswer>;

export interface FillOptions {
  /** Most nodes of one tree. @default 64 */
  most?: number;
  /** Successors to hold per node. @default 16, or fewer if the trace holds fewer */
  k?: number;
  /** Told after every text: nodes that are new in its trace. */
  onText?: (trace: Trace, nodes: readonly number[]) => void;
  signal?: AbortSignal;
}

const MOST_NODES = 64;
const WIDTH = 16;

/** Missing nodes without repetition, by text and position. */
export class MissingNodes {
  readonly byTrace = new Map<Trace, Map<number, number[][]>>();
  count = 0;
  private readonly seen = new Map<Trace, Set<string>>();

  add({ trace, position, path }: MissingNode): void {
    const seen = this.seen.get(trace) ?? new Set();
    this.seen.set(trace, seen);
    const key = `${position} ${path.join(" ")}`;
    if (seen.has(key)) return;
    seen.add(key);
    let positions = this.byTrace.get(trace);
    if (positions === undefined) {
      positions = new Map();
      this.byTrace.set(trace, positions);
    }
    const paths = positions.get(position);
    if (paths === undefined) positions.set(position, [path]);
    else paths.push(path);
    this.count++;
  }
}

/** Asks about all of them and adds the answers to the traces. @returns nodes added */
export async function fill(
  missing: MissingNodes,
  verify: VerifyTree,
  options: FillOptions = {},
): Promise<number> {
  let added = 0;
  for (const [trace, positions] of missing.byTrace) {
    options.signal?.throwIfAborted();
    const k = Math.min(options.k ?? WIDTH, trace.k);
    trace.offPath ??= new OffPath(k);
    const nodes: number[] = [];
    for (const tree of packTrees(trace, positions, options.most ?? MOST_NODES)) {
      options.signal?.throwIfAborted();
      const prompt = Int32Array.from([...trace.prompt, ...trace.tokens.subarray(0, tree.position)]);
      const shape = { tokens: Int32Array.from(tree.tokens), parents: Int32Array.from(tree.parents) };
      tree.keep(trace.offPath, await verify(prompt, shape, trace.offPath.k), nodes);
    }
    added += nodes.length;
    options.onText?.(trace, nodes);
  }
  return added;
}

/** A tree to ask for, below the first `position` tokens of a text. */
class AskedTree {
  readonly position: number;
  readonly tokens: number[] = [];
  readonly parents: number[] = [];
  /** Position of a node that belongs to the text, -1 for one that branches off. */
  private readonly places: number[] = [];
  private readonly index = new Map<number, number>();

  constructor(position: number) {
    this.position = position;
  }

  get size(): number {
    return this.tokens.length;
  }

  /** Adds a path that starts at a position, with as much of the text as it needs. */
  add(trace: Trace, position: number, path: readonly number[]): void {
    let node = -1;
    for (let at = this.position; at < position; at++) node = this.child(node, trace.tokens[at], at + 1);
    let place = position;
    for (const token of path) {
      place = place >= 0 && place < trace.tokens.length - 1 && trace.tokens[place] === token ? place + 1 : -1;
      node = this.child(node, token, place);
    }
  }

  /** Takes what was added last away again. */
  shrink(size: number): void {
    while (this.tokens.length > size) {
      const token = this.tokens.pop()!;
      this.index.delete(keyOf(this.parents.pop()!, token));
      this.places.pop();
    }
  }

  /** Notes the answers in `known`; the numbers of new nodes go to `added`. */
  keep(known: OffPath, { ids, probs }: TreeAnswer, added: number[]): void {
    const places: number[] = [];
    for (let i = 0; i < this.tokens.length; i++) {
      if (this.places[i] >= 0) {
        places.push(this.places[i]);
        continue;
      }
      const parent = this.parents[i] < 0 ? this.position : places[this.parents[i]];
      const before = known.count;
      const node = known.add(parent, this.tokens[i], ids, probs, i * known.k);
      if (known.count > before) added.push(node);
      places.push(~node);
    }
  }

  private child(parent: number, token: number, place: number): number {
    const key = keyOf(parent, token);
    const there = this.index.get(key);
    if (there !== undefined) return there;
    this.index.set(key, this.tokens.length);
    this.tokens.push(token);
    this.parents.push(parent);
    this.places.push(place);
    return this.tokens.length - 1;
  }
}

/** As few trees as simple packing finds. A path longer than a tree may be is left out. */
function* packTrees(
  trace: Trace,
  positions: ReadonlyMap<number, readonly number[][]>,
  most: number,
): Generator<AskedTree> {
  let tree: AskedTree | undefined;
  for (const position of [...positions.keys()].sort((a, b) => a - b)) {
    for (const path of positions.get(position)!) {
      if (path.length > most) continue;
      tree ??= new AskedTree(position);
      const size = tree.size;
      tree.add(trace, position, path);
      if (tree.size <= most) continue;
      tree.shrink(size);
      yield tree;
      tree = new AskedTree(position);
      tree.add(trace, position, path);
    }
  }
  if (tree !== undefined && tree.size > 0) yield tree;
}

function keyOf(parent: number, token: number): number {
  return (parent + 1) * 2 ** 21 + token;
}

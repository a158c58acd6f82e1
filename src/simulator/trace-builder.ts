/** Puts the lines of a trace file together into texts. Does not trust them: a line that does not fit is an error with its reason. */
import { OffPath } from "./off-path.ts";
import type { Trace } from "./trace.ts";
import {
  type BeginLine,
  type OffPathLine,
  type StepLine,
  type TextLine,
  TRACE_VERSION,
} from "./trace-lines.ts";

/** A text that grows step by step. */
interface Growing {
  id: string;
  temperature: number;
  prompt: number[];
  tokens: number[];
  k: number;
  ids: number[];
  probs: number[];
  offPath?: OffPath;
}

/** A vocabulary or a file may be large; a token id never is. */
const MOST_TOKEN = 2 ** 21;

export class TraceBuilder {
  nVocab: number | undefined;
  private readonly texts: Trace[] = [];
  private readonly byId = new Map<string, Trace>();
  /** What each slot holds; undefined where a recording began in the middle. */
  private readonly held = new Map<number, number[]>();
  private readonly growing = new Map<number, Growing>();
  /** Recordings in the file so far: their request ids start anew. */
  private recording = 0;

  /** Takes one line, parsed. @throws Error that says what is wrong with it */
  take(line: unknown): void {
    if (typeof line !== "object" || line === null) throw new Error("it is no JSON object");
    const map = line as Record<string, unknown>;
    if ("aded_trace" in map) this.header(map);
    else if ("begin" in map) this.begin(map as unknown as BeginLine);
    else if ("step" in map) this.step(map as unknown as StepLine);
    else if ("end" in map) this.end(slotOf(map.end));
    else if ("of" in map) this.offPath(map as unknown as OffPathLine);
    else this.text(map as unknown as TextLine);
  }

  /** All texts with at least two tokens, in the order in which they ended; those that never ended come last. */
  finish(): Trace[] {
    for (const slot of [...this.growing.keys()]) this.end(slot);
    return this.texts;
  }

  private header(map: Record<string, unknown>): void {
    if (map.aded_trace !== TRACE_VERSION) {
      throw new Error(`its version is ${String(map.aded_trace)}, this program reads ${TRACE_VERSION}`);
    }
    if (typeof map.n_vocab === "number") this.nVocab = map.n_vocab;
    for (const slot of [...this.growing.keys()]) this.end(slot);
    this.held.clear();
    this.recording++;
  }

  private begin(line: BeginLine): void {
    const slot = slotOf(line.begin);
    this.end(slot);
    const tokens = numbers(line.tokens, "tokens");
    const keep = line.keep ?? 0;
    const before = this.held.get(slot);
    // what is kept of a prompt that was not recorded is unknown: such a text cannot be replayed
    if (keep > (before?.length ?? 0)) {
      this.held.delete(slot);
      return;
    }
    const prompt = [...(before ?? []).slice(0, keep), ...tokens];
    this.held.set(slot, prompt);
    if (prompt.length === 0) return;
    const id = this.recording > 1 ? `${this.recording}/${line.id}` : String(line.id);
    this.growing.set(slot, {
      id,
      temperature: line.temperature ?? 0,
      prompt: [...prompt],
      tokens: [],
      k: 0,
      ids: [],
      probs: [],
    });
  }

  private step(line: StepLine): void {
    const slot = slotOf(line.step);
    const text = this.growing.get(slot);
    if (text === undefined) return;
    const accepted = numbers(line.accepted, "accepted");
    const nodes = numbers(line.nodes, "nodes");
    const parents = numbers(line.parents, "parents", nodes.length);
    const path = numbers(line.path, "path");
    const k = line.k;
    const ids = numbers(line.ids, "ids", nodes.length * k);
    const probs = numbers(line.probs, "probs", nodes.length * k);
    if (!(k > 0)) throw new Error(`k is ${k}`);
    if (text.k === 0) text.k = k;
    if (text.k !== k) throw new Error(`k is ${k}, it was ${text.k} before`);
    const from = text.tokens.length;
    const place = new Map<number, number>();
    for (let j = 0; j < path.length && j < accepted.length; j++) {
      place.set(path[j], from + j);
      for (let i = path[j] * k; i < (path[j] + 1) * k; i++) {
        text.ids.push(ids[i]);
        text.probs.push(probs[i]);
      }
    }
    if (place.size !== accepted.length) throw new Error("path and accepted do not match");
    text.tokens.push(...accepted);
    this.held.get(slot)?.push(...accepted);
    text.offPath ??= new OffPath(k);
    for (let i = 0; i < nodes.length; i++) {
      if (place.has(i)) continue;
      const parent = place.get(parents[i]);
      if (parent === undefined) continue;
      place.set(i, ~text.offPath.add(parent, nodes[i], ids, probs, i * k));
    }
  }

  private end(slot: number): void {
    const text = this.growing.get(slot);
    if (text === undefined) return;
    this.growing.delete(slot);
    if (text.tokens.length < 2) return;
    this.add({
      ...text,
      category: "",
      prompt: Int32Array.from(text.prompt),
      tokens: Int32Array.from(text.tokens),
      ids: Int32Array.from(text.ids),
      probs: Float32Array.from(text.probs),
    });
  }

  private text(line: TextLine): void {
    if (typeof line.id !== "string") throw new Error("it has neither id nor a known key");
    const prompt = numbers(line.prompt, "prompt");
    const tokens = numbers(line.tokens, "tokens");
    if (prompt.length === 0) throw new Error("prompt is empty");
    if (!(line.k > 0)) throw new Error(`k is ${line.k}`);
    this.add({
      id: line.id,
      category: line.category ?? "",
      temperature: line.temperature ?? 0,
      prompt: Int32Array.from(prompt),
      tokens: Int32Array.from(tokens),
      k: line.k,
      ids: Int32Array.from(numbers(line.ids, "ids", tokens.length * line.k)),
      probs: Float32Array.from(numbers(line.probs, "probs", tokens.length * line.k)),
    });
  }

  private offPath(line: OffPathLine): void {
    const trace = this.byId.get(line.of);
    if (trace === undefined) throw new Error(`it tells of "${line.of}", which does not stand above`);
    const tokens = numbers(line.tokens, "tokens");
    const parents = numbers(line.parents, "parents", tokens.length);
    const ids = numbers(line.ids, "ids", tokens.length * line.k);
    const probs = numbers(line.probs, "probs", tokens.length * line.k);
    trace.offPath ??= new OffPath(line.k);
    if (trace.offPath.k !== line.k) throw new Error(`k is ${line.k}, it was ${trace.offPath.k} before`);
    const nodes: number[] = [];
    for (let i = 0; i < tokens.length; i++) {
      const above = parents[i];
      if (above >= trace.tokens.length || ~above >= i)
        throw new Error(`parents[${i}] = ${above} is out of range`);
      const parent = above < 0 ? ~nodes[~above] : above;
      nodes.push(trace.offPath.add(parent, tokens[i], ids, probs, i * line.k));
    }
  }

  private add(trace: Trace): void {
    if (this.byId.has(trace.id)) throw new Error(`the id "${trace.id}" is taken`);
    this.texts.push(trace);
    this.byId.set(trace.id, trace);
  }
}

function slotOf(value: unknown): number {
  if (!Number.isInteger(value)) throw new Error(`the slot is ${String(value)}`);
  return value as number;
}

function numbers(value: unknown, name: string, length?: number): number[] {
  if (!Array.isArray(value)) throw new Error(`${name} is no array`);
  if (length !== undefined && value.length !== length) {
    throw new Error(`${name} holds ${value.length} numbers, expected ${length}`);
  }
  for (const item of value) {
    if (typeof item !== "number" || !(Math.abs(item) < MOST_TOKEN)) throw new Error(`${name} holds ${item}`);
  }
  return value as number[];
}

/**
 * The file format of traces: JSON lines, each complete in itself, so that a file that broke off loses at most its last line
 * (docs/drafter.md has the format). `aded serve --record` writes steps as they happen, `formatText` whole texts, `formatOffPath` what
 * was found out later about nodes that a text did not take.
 */
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { AdedError, messageOf } from "../errors.ts";
import type { OffPath } from "./off-path.ts";
import type { Trace } from "./trace.ts";
import { TraceBuilder } from "./trace-builder.ts";
import type { OffPathLine, TextLine } from "./trace-lines.ts";

export interface TraceFile {
  traces: Trace[];
  /** Size of the vocabulary; undefined: the file does not tell. */
  nVocab?: number;
  /** True: the last line was cut off and left out. */
  cutOff: boolean;
}

const HINT = "a trace file is made by aded serve --record; docs/drafter.md describes its lines";

/** @throws AdedError ADED_BENCH for a file that cannot be read or a line that is none of the format, named by its number */
export async function readTraces(file: string): Promise<TraceFile> {
  const input = createReadStream(file, "utf8");
  const builder = new TraceBuilder();
  let number = 0;
  let pending: AdedError | undefined;
  let lastByte = "\n";
  input.on("data", (chunk) => {
    lastByte = String(chunk).slice(-1);
  });
  try {
    for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      number++;
      if (line.trim() === "") continue;
      // a bad line may only be the last one, cut off in the middle
      if (pending !== undefined) throw pending;
      pending = takeLine(builder, line, `${file}:${number}`);
    }
  } catch (cause) {
    if (cause instanceof AdedError) throw cause;
    throw new AdedError("ADED_BENCH", `cannot read the traces ${file}: ${messageOf(cause)}`, {
      hint: "Name an existing trace file after --traces.",
      cause,
    });
  }
  if (pending !== undefined && lastByte === "\n") throw pending;
  return { traces: builder.finish(), nVocab: builder.nVocab, cutOff: pending !== undefined };
}

/** @returns what is wrong with the line, if anything is */
function takeLine(builder: TraceBuilder, line: string, where: string): AdedError | undefined {
  try {
    builder.take(JSON.parse(line) as unknown);
    return undefined;
  } catch (cause) {
    return new AdedError("ADED_BENCH", `${where} is no line of a trace: ${messageOf(cause)}`, {
      hint: HINT,
      cause,
    });
  }
}

/** The line of a whole text. */
export function formatText(trace: Trace): string {
  const line: TextLine = {
    id: trace.id,
    category: trace.category,
    temperature: trace.temperature === 0 ? undefined : trace.temperature,
    prompt: [...trace.prompt],
    tokens: [...trace.tokens],
    k: trace.k,
    ids: [...trace.ids],
    probs: roundedProbs(trace.probs),
  };
  return `${JSON.stringify(line)}\n`;
}

/** The line that tells of some of the nodes known beside a text, and of the nodes above them. */
export function formatOffPath(of: string, known: OffPath, nodes: Iterable<number>): string {
  const { k } = known;
  const line: OffPathLine = { of, parents: [], tokens: [], k, ids: [], probs: [] };
  const placeOf = new Map<number, number>();
  const write = (node: number): number => {
    const written = placeOf.get(node);
    if (written !== undefined) return written;
    const above = known.parent(node);
    const parent = above < 0 ? ~write(~above) : above;
    const place = line.parents.length;
    placeOf.set(node, place);
    line.parents.push(parent);
    line.tokens.push(known.token(node));
    line.ids.push(...known.ids.subarray(node * k, (node + 1) * k));
    line.probs.push(...roundedProbs(known.probs.subarray(node * k, (node + 1) * k)));
    return place;
  };
  for (const node of nodes) write(node);
  return `${JSON.stringify(line)}\n`;
}

/** Five decimals are enough: smaller probabilities are never drafted. */
export function roundedProbs(probs: Float32Array): number[] {
  return Array.from(probs, (p) => Math.round(p * 1e5) / 1e5);
}

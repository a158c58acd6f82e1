/**
 * Records what a drafter is told, for replays: token ids and the likeliest successors, nothing else. Lines are made and written after the
 * drafter's answer is on its way.
 */
import {
  closeSync,
  createWriteStream,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  statSync,
  type WriteStream,
} from "node:fs";
import type { Drafter, EngineInfo, VerifiedSlot } from "../drafter/draft.ts";
import { messageOf } from "../errors.ts";
import { roundedProbs } from "./trace-file.ts";
import {
  type BeginLine,
  type EndLine,
  type HeaderLine,
  type StepLine,
  TRACE_VERSION,
} from "./trace-lines.ts";

export interface RecordingOptions {
  /** Told once why nothing is recorded any more: the file takes nothing, or it is full. */
  onEnd: (reason: string) => void;
  /** Most bytes that the file may have. @default 1 GiB */
  mostBytes?: number;
}

const MOST_BYTES = 2 ** 30;
/** What waits for the disk may grow to this, or a slow disk would fill the memory. */
const MOST_WAITING = 64 * 2 ** 20;
/** No line is longer: a prompt of a million tokens. */
const LONGEST_LINE = 16 * 2 ** 20;
const LINE_END = 10;

/**
 * Appends lines to a file that only its owner may read: token ids are text. Whole lines only, so that a crash costs one line at most. Gives
 * up, once and for all, when writing fails or the file is full.
 */
export class Recording {
  private stream: WriteStream | undefined;
  private readonly onEnd: (reason: string) => void;
  private readonly mostBytes: number;
  private bytes = 0;
  private gaveUp = false;
  private readonly waiting: (() => HeaderLine | BeginLine | StepLine | EndLine)[] = [];

  constructor(file: string, { onEnd, mostBytes = MOST_BYTES }: RecordingOptions) {
    this.onEnd = onEnd;
    this.mostBytes = mostBytes;
    try {
      mend(file);
      this.bytes = statSync(file).size;
      this.stream = createWriteStream(file, { flags: "a", mode: 0o600 });
      this.stream.on("error", (error) => this.giveUp(messageOf(error)));
    } catch (error) {
      this.giveUp(messageOf(error));
    }
  }

  /** Takes a line that is made later: what it is made from must not change until then. */
  add(line: () => HeaderLine | BeginLine | StepLine | EndLine): void {
    if (this.stream === undefined) return;
    this.waiting.push(line);
    if (this.waiting.length === 1) setImmediate(() => this.write());
  }

  /** Writes what waits and closes the file. */
  close(): Promise<void> {
    this.write();
    const { stream } = this;
    this.stream = undefined;
    return new Promise((resolve) => {
      if (stream === undefined || stream.destroyed) resolve();
      else stream.end(() => resolve());
    });
  }

  private write(): void {
    const lines = this.waiting.splice(0);
    const { stream } = this;
    if (lines.length === 0 || stream === undefined) return;
    const text = lines.map((line) => `${JSON.stringify(line())}\n`).join("");
    this.bytes += Buffer.byteLength(text);
    if (this.bytes > this.mostBytes) {
      stream.end();
      this.giveUp(`the file would grow beyond ${this.mostBytes} bytes`);
    } else if (stream.writableLength > MOST_WAITING) {
      stream.end();
      this.giveUp("the disk is too slow");
    } else {
      stream.write(text);
    }
  }

  private giveUp(reason: string): void {
    if (this.gaveUp) return;
    this.gaveUp = true;
    this.stream = undefined;
    this.waiting.length = 0;
    this.onEnd(reason);
  }
}

/** Records from now on what this drafter is told; everything else about it stays as it is. */
export function recordTraffic(drafter: Drafter, info: EngineInfo, recording: Recording): void {
  const begin = drafter.begin.bind(drafter);
  const observe = drafter.observe.bind(drafter);
  const end = drafter.end.bind(drafter);
  recording.add(() => ({
    aded_trace: TRACE_VERSION,
    model: info.model,
    n_vocab: info.nVocab,
    vocab_hash: info.vocabHash,
  }));
  drafter.begin = (request) => {
    const { slot, id, keep, sampling } = request;
    const tokens = [...request.tokens];
    const temperature = sampling.greedy ? 0 : sampling.temperature;
    recording.add(() => ({ begin: slot, id, keep, tokens, temperature }));
    begin(request);
  };
  drafter.observe = (step) => {
    for (const verified of step.slots) recording.add(stepLine(verified));
    observe(step);
  };
  drafter.end = (slot, id, reason) => {
    recording.add(() => ({ end: slot, reason }));
    end(slot, id, reason);
  };
}

/** Copies what came off the socket, which the next frame overwrites. */
function stepLine(verified: VerifiedSlot): () => StepLine {
  const { slot, k } = verified;
  const accepted = verified.accepted.slice();
  const nodes = verified.nodes.slice();
  const parents = verified.parents.slice();
  const path = verified.path.slice();
  const ids = verified.ids.slice();
  const probs = verified.probs.slice();
  return () => ({
    step: slot,
    accepted: [...accepted],
    nodes: [...nodes],
    parents: [...parents],
    path: [...path],
    k,
    ids: [...ids],
    probs: roundedProbs(probs),
  });
}

/** Takes a line that broke off in a crash away, or the next one would be lost with it. */
function mend(file: string): void {
  const descriptor = openSync(file, "a+", 0o600);
  try {
    const { size } = fstatSync(descriptor);
    const tail = Buffer.alloc(Math.min(size, LONGEST_LINE));
    readSync(descriptor, tail, 0, tail.length, size - tail.length);
    if (size === 0 || tail[tail.length - 1] === LINE_END) return;
    ftruncateSync(descriptor, size - tail.length + tail.lastIndexOf(LINE_END) + 1);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Records what a drafter is told, for replays: token ids and the likeliest successors, nothing else. Stands between the link and the drafter
 * and hands everything through; lines are made and written after the answer is on its way.
 */
import { createWriteStream, type WriteStream } from "node:fs";
import type {
  BeginRequest,
  Drafter,
  DrafterStats,
  EngineInfo,
  SlotDraft,
  VerifiedStep,
} from "../drafter/draft.ts";
import { messageOf } from "../errors.ts";
import { roundedProbs } from "./trace-file.ts";
import {
  type BeginLine,
  type EndLine,
  type HeaderLine,
  type StepLine,
  TRACE_VERSION,
} from "./trace-lines.ts";

/** Appends lines to a file that only its owner may read: token ids are text. Gives up, once and for all, when writing fails. */
export class Recording {
  private readonly stream: WriteStream;
  private failed = false;
  private readonly waiting: (() => HeaderLine | BeginLine | StepLine | EndLine)[] = [];

  /** @param onFailure told why, should the file not take what is written */
  constructor(file: string, onFailure: (reason: string) => void) {
    this.stream = createWriteStream(file, { flags: "a", mode: 0o600 });
    this.stream.on("error", (error) => {
      if (!this.failed) onFailure(messageOf(error));
      this.failed = true;
      this.waiting.length = 0;
    });
  }

  /** Takes a line that is made later: what it is made from must not change until then. */
  add(line: () => HeaderLine | BeginLine | StepLine | EndLine): void {
    if (this.failed) return;
    this.waiting.push(line);
    if (this.waiting.length === 1) setImmediate(() => this.write());
  }

  /** Writes what waits and closes the file. */
  close(): Promise<void> {
    this.write();
    return new Promise((resolve) => {
      if (this.failed) resolve();
      else this.stream.end(resolve);
    });
  }

  private write(): void {
    if (this.waiting.length === 0) return;
    let text = "";
    for (const line of this.waiting) text += `${JSON.stringify(line())}\n`;
    this.waiting.length = 0;
    this.stream.write(text);
  }
}

/** A drafter whose traffic is recorded. */
export class RecordedDrafter implements Drafter {
  private readonly drafter: Drafter;
  private readonly recording: Recording;

  constructor(drafter: Drafter, info: EngineInfo, recording: Recording) {
    this.drafter = drafter;
    this.recording = recording;
    recording.add(() => ({
      aded_trace: TRACE_VERSION,
      model: info.model,
      n_vocab: info.nVocab,
      vocab_hash: info.vocabHash,
    }));
  }

  begin(request: BeginRequest): void {
    const { slot, id, keep, sampling } = request;
    const tokens = [...request.tokens];
    const temperature = sampling.greedy ? 0 : sampling.temperature;
    this.recording.add(() => ({ begin: slot, id, keep, tokens, temperature }));
    this.drafter.begin(request);
  }

  observe(step: VerifiedStep): void {
    for (const verified of step.slots) {
      const { slot, k } = verified;
      // what came off the socket is overwritten by the next frame
      const accepted = verified.accepted.slice();
      const nodes = verified.nodes.slice();
      const parents = verified.parents.slice();
      const path = verified.path.slice();
      const ids = verified.ids.slice();
      const probs = verified.probs.slice();
      this.recording.add(() => ({
        step: slot,
        accepted: [...accepted],
        nodes: [...nodes],
        parents: [...parents],
        path: [...path],
        k,
        ids: [...ids],
        probs: roundedProbs(probs),
      }));
    }
    this.drafter.observe(step);
  }

  draft(step: VerifiedStep): readonly SlotDraft[] {
    return this.drafter.draft(step);
  }

  end(slot: number, id: number, reason: string): void {
    this.recording.add(() => ({ end: slot, reason }));
    this.drafter.end(slot, id, reason);
  }

  stats(): DrafterStats {
    return this.drafter.stats();
  }
}

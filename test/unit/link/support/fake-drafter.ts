/** A drafter that writes down its calls and always drafts the token after the last one; scope "crash" makes it throw. */
import type {
  BeginRequest,
  Drafter,
  DrafterStats,
  EngineInfo,
  SlotDraft,
  VerifiedStep,
} from "../../../../src/drafter/draft.ts";

export class FakeDrafter implements Drafter {
  readonly calls: string[] = [];
  readonly info: EngineInfo;
  #steps = 0;
  #tokens = 0;

  constructor(info: EngineInfo) {
    this.info = info;
  }

  begin(request: BeginRequest): void {
    if (request.scope === "crash") throw new Error("the fake drafter was told to crash");
    this.calls.push(`begin ${request.slot} ${request.id} [${request.tokens}]`);
  }

  observe(step: VerifiedStep): void {
    this.#steps++;
    for (const slot of step.slots) this.#tokens += slot.accepted.length;
    this.calls.push(`observe ${step.slots.map((slot) => `[${slot.accepted}]`).join(" ")}`);
  }

  draft(step: VerifiedStep): readonly SlotDraft[] {
    this.calls.push("draft");
    return step.slots.map((slot) => ({
      slot: slot.slot,
      tokens: Int32Array.of(slot.accepted[slot.accepted.length - 1] + 1),
      parents: Int32Array.of(-1),
      sleep: 0,
    }));
  }

  end(slot: number, id: number, reason: string): void {
    this.calls.push(`end ${slot} ${id} ${reason}`);
  }

  stats(): DrafterStats {
    return {
      steps: this.#steps,
      tokens: this.#tokens,
      tokensPerStep: this.#tokens / this.#steps,
      draftedNodes: this.#steps,
      acceptedNodes: 0,
      matrix: { rows: 1, bytes: 2, limit: 3 },
      controller: { asleep: 0, nodes: 1 },
      costUs: { "1": 1000 },
    };
  }
}

/** The name by which a worker looks for its drafter. */
export { FakeDrafter as AdedDrafter };

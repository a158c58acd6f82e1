/** Lets somebody look at each verified step, with the request's scope; costs nothing while nobody does. */
import type { Drafter, VerifiedStep } from "../drafter/draft.ts";

/** One slot of one step, as plain data. */
export interface WatchedStep {
  slot: number;
  /** Task id of the request, unique within the engine process. */
  id: number;
  /** Learning scope of the request: who may see it. */
  scope: string;
  /** Tokens of the verified nodes; the first is the root. */
  nodes: number[];
  /** Index of each node's parent, -1 for the root. */
  parents: number[];
  /** Indices of the accepted nodes, root first. */
  path: number[];
  /** Tokens emitted. */
  accepted: number[];
  /** µs of the forward pass; 0 if it also evaluated prompt tokens. */
  us: number;
}

export class StepWatch {
  /** Set while somebody looks. */
  on = false;
  readonly #tell: (steps: WatchedStep[]) => void;
  readonly #requests = new Map<number, { id: number; scope: string }>();

  constructor(tell: (steps: WatchedStep[]) => void) {
    this.#tell = tell;
  }

  /** The drafter, its calls looked at as they come. */
  attach(drafter: Drafter): Drafter {
    const begin = drafter.begin.bind(drafter);
    const observe = drafter.observe.bind(drafter);
    drafter.begin = (request) => {
      this.#requests.set(request.slot, { id: request.id, scope: request.scope });
      begin(request);
    };
    drafter.observe = (step) => {
      if (this.on) this.#tell(this.#plain(step));
      observe(step);
    };
    return drafter;
  }

  #plain({ slots, decodeUs }: VerifiedStep): WatchedStep[] {
    return slots.map((slot) => ({
      slot: slot.slot,
      ...(this.#requests.get(slot.slot) ?? { id: -1, scope: "" }),
      nodes: Array.from(slot.nodes),
      parents: Array.from(slot.parents),
      path: Array.from(slot.path),
      accepted: Array.from(slot.accepted),
      us: decodeUs,
    }));
  }
}

/** What the proxy asks before it sends a request to a model's engine. */
import type { ModelView, Refusal } from "./scheduler.ts";

export interface Visitor {
  /** The engine takes the request now. May be called before `enter` returns. */
  granted(): void;
  refused(refusal: Refusal): void;
}

export interface Visit {
  /** The request is over, or the client has left. Called any number of times. */
  leave(): void;
  /** What the client waits for; undefined: it does not wait any more. */
  progress(): Progress | undefined;
}

export interface Progress {
  model: string;
  state: ModelView["phase"];
  /** Requests before this one, of all models. */
  ahead: number;
  /** What is done to get the model ready, such as fetching its file. */
  note?: string;
}

export interface GateStatus extends ModelView {
  note?: string;
}

export interface ModelGate {
  /** @param options.quiet does not count as use of the model */
  enter(model: string, visitor: Visitor, options?: { quiet?: boolean }): Visit;
  status(model: string): GateStatus | undefined;
  /** Starts the model; resolves when it is ready. @throws AdedError */
  load(model: string): Promise<void>;
  /** Stops the model once its running requests are done; resolves when it is gone. */
  unload(model: string): Promise<void>;
}

/** The models that the proxy serves, by name and alias; the first one is the default. */
import type { DraftingSnapshot, Engine } from "../engine/engine.ts";
import { AdedError } from "../errors.ts";
import type { GateStatus, ModelGate } from "../swap/gate.ts";
import type { Arm } from "./headers.ts";

export interface ProxyModel {
  engine: Engine;
  /** Other names that requests may use for this model. */
  aliases?: readonly string[];
  /** Left out of the list of models. */
  hidden?: boolean;
}

export interface DraftingSources {
  /** What the drafter of a model reports; undefined: it has none. */
  draftingStatus?: (model: string) => DraftingSnapshot | undefined;
  /** Whether a model's draft link is connected; asked for every request. @default read from `draftingStatus` */
  linkUp?: (model: string) => boolean;
}

export class ModelTable {
  list: readonly Engine[] = [];
  #models: readonly ProxyModel[] = [];
  #byName = new Map<string, Engine>();
  readonly #drafting: (model: string) => DraftingSnapshot | undefined;
  readonly #linkUp: (model: string) => boolean;

  /** @throws AdedError ADED_CONFIG when there is no model, or two share a name */
  constructor(models: readonly ProxyModel[], { draftingStatus, linkUp }: DraftingSources = {}) {
    this.replace(models);
    this.#drafting = draftingStatus ?? (() => undefined);
    this.#linkUp = linkUp ?? ((model) => this.#drafting(model)?.link === "connected");
  }

  /** Serves these models from now on. @throws AdedError ADED_CONFIG when there is none, or two share a name */
  replace(models: readonly ProxyModel[]): void {
    if (models.length === 0) {
      throw new AdedError("ADED_CONFIG", "no model is configured", { hint: "Name at least one model." });
    }
    const byName = new Map<string, Engine>();
    for (const { engine, aliases = [] } of models) {
      for (const name of new Set([engine.model, ...aliases])) {
        if (byName.has(name)) {
          throw new AdedError("ADED_CONFIG", `two models are called '${name}'`, {
            hint: "Rename one of them.",
          });
        }
        byName.set(name, engine);
      }
    }
    this.#models = models;
    this.list = models.map(({ engine }) => engine);
    this.#byName = byName;
  }

  get single(): boolean {
    return this.list.length === 1;
  }

  get default(): Engine {
    return this.list[0];
  }

  get names(): string[] {
    return this.list.map((engine) => engine.model);
  }

  /**
   * The engine for the name in a request; the default without a name, and where only one model is served (llama-server takes
   * any name too); undefined for an unknown one.
   */
  find(name: string | undefined): Engine | undefined {
    if (name === undefined || name === "" || this.single) return this.default;
    return this.#byName.get(name);
  }

  drafting(engine: Engine): DraftingSnapshot | undefined {
    return this.#drafting(engine.model);
  }

  /** "on" when drafts are wanted and possible at this moment. */
  arm(engine: Engine, wanted: Arm): Arm {
    if (wanted === "off" || engine.snapshot().kind !== "patched") return "off";
    return this.#linkUp(engine.model) ? "on" : "off";
  }

  /**
   * What to ask the engine for: a request that is told it runs plain does so to its end, also when the drafter comes back
   * meanwhile. An engine without a drafter of ours is left alone.
   */
  asked(engine: Engine, wanted: Arm, arm: Arm): Arm {
    if (wanted === arm) return wanted;
    return this.#drafting(engine.model) !== undefined ? "off" : wanted;
  }

  /**
   * The answer to `GET /v1/models` where several models are served, in llama-server's shape: `status.value` in the words of
   * its router mode.
   */
  listing(gate?: ModelGate): unknown {
    const created = Math.floor(Date.now() / 1000);
    return {
      object: "list",
      data: this.#models
        .filter(({ hidden }) => hidden !== true)
        .map(({ engine, aliases = [] }) => ({
          id: engine.model,
          aliases,
          object: "model",
          created,
          owned_by: "llamacpp",
          status: modelState(engine, gate?.status(engine.model)),
        })),
    };
  }
}

const ROUTER_WORDS = { ready: "loaded", starting: "loading", restarting: "loading" } as const;

function modelState(engine: Engine, status: GateStatus | undefined): unknown {
  const { state } = engine.snapshot();
  const value = state in ROUTER_WORDS ? ROUTER_WORDS[state as keyof typeof ROUTER_WORDS] : "unloaded";
  if (status === undefined) return { value, state };
  const { running, waiting, error, note } = status;
  return { value, state, running, waiting, failed: error === undefined ? undefined : true, error, note };
}

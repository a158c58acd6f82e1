/** What the config says about which models may run together, as the scheduler needs it. Times in ms. */

export interface ModelRules {
  /** Name of its group. */
  group: string;
  /** Never stopped to make room for another model, and stops none itself. */
  pinned: boolean;
  /** Stopped after so long without a request; 0: never. */
  ttlMs: number;
  /** Requests at once that its engine is given; 0: no limit. */
  maxRunning: number;
}

/** The meaning of these three is that of llama-swap's groups (its config.example.yaml). */
export interface GroupRules {
  /** One member at a time. */
  swap: boolean;
  /** Starting a member stops the members of other groups. */
  exclusive: boolean;
  /** Other groups never stop its members. */
  persistent: boolean;
}

export interface SchedulerRules {
  models: ReadonlyMap<string, ModelRules>;
  groups: ReadonlyMap<string, GroupRules>;
  /** Requests that may wait, all models together. */
  queueMax: number;
  /** Longest wait of a request. */
  queueMs: number;
  /** A model that has just become ready takes new requests for so long, whoever else waits. */
  residencyMs: number;
  /** After a failed start no other one is tried for so long; doubled with each further failure up to `backoffMaxMs`. */
  backoffFirstMs: number;
  backoffMaxMs: number;
}

/** May `wanted` not run while `resident` does? Not symmetric: it is the wanted model's group that is exclusive or not. */
export function conflicts(rules: SchedulerRules, wanted: string, resident: string): boolean {
  if (wanted === resident) return false;
  const a = rules.models.get(wanted);
  const b = rules.models.get(resident);
  if (a === undefined || b === undefined || a.pinned || b.pinned) return false;
  if (a.group === b.group) return rules.groups.get(a.group)?.swap ?? true;
  const exclusive = rules.groups.get(a.group)?.exclusive ?? true;
  return exclusive && !(rules.groups.get(b.group)?.persistent ?? false);
}

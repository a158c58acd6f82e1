/**
 * What each learning scope knows: a matrix and a history, all within one memory budget, and how far to trust them. It serves that scope only. When memory runs
 * out, the scope used longest ago that has no request running gives way; between running ones the largest does.
 */
import { HISTORY_TOKEN_BYTES, History } from "./history.ts";
import { Learnt } from "./learnt.ts";
import { MemoryBudget } from "./memory-budget.ts";
import { TrigramMatrix } from "./trigram-matrix.ts";

export interface Scope {
  readonly name: string;
  readonly matrix: TrigramMatrix;
  readonly history: History;
  greedy: Learnt;
  sampled: Learnt;
  /** Requests running in it. */
  running: number;
  /** Ordinal of its last use. */
  used: number;
}

export interface ScopesOptions {
  /** Bytes for all matrices together. */
  bytes: number;
  width: number;
  /** Most tokens of earlier outputs per scope. */
  historyTokens: number;
  /** Most scopes held. */
  most: number;
}

export class Scopes {
  readonly budget: MemoryBudget;
  private readonly options: ScopesOptions;
  private readonly scopes = new Map<string, Scope>();
  private clock = 0;

  constructor(options: ScopesOptions) {
    this.options = options;
    this.budget = new MemoryBudget(options.bytes);
  }

  get count(): number {
    return this.scopes.size;
  }

  /** Rows of all scopes. */
  get rows(): number {
    let rows = 0;
    for (const scope of this.scopes.values()) rows += scope.matrix.rowCount;
    return rows;
  }

  /** All scopes, the one used longest ago first. */
  byUse(): Scope[] {
    return [...this.scopes.values()].sort((a, b) => a.used - b.used);
  }

  /** Forgets everything. */
  clear(): void {
    for (const scope of this.scopes.values()) clear(scope);
    this.scopes.clear();
  }

  /** A request begins: its scope, made if it is new. */
  enter(name: string): Scope {
    let scope = this.scopes.get(name);
    if (scope === undefined) {
      if (this.scopes.size >= this.options.most) this.forgetOldest();
      // 1/64 of the budget at a time at most, so that small budgets can be shared too.
      const rows = this.options.bytes / 64 / (this.options.width * 8 + 11);
      const chunkShift = Math.max(4, Math.min(12, Math.floor(Math.log2(rows))));
      const matrix = new TrigramMatrix(this.budget, { width: this.options.width, chunkShift });
      const tokens = Math.min(this.options.historyTokens, this.options.bytes / 16 / HISTORY_TOKEN_BYTES);
      const history = new History(this.budget, { tokens: 2 ** Math.floor(Math.log2(Math.max(1, tokens))) });
      scope = { name, matrix, history, greedy: new Learnt(), sampled: new Learnt(), running: 0, used: 0 };
      this.scopes.set(name, scope);
    }
    scope.running++;
    scope.used = ++this.clock;
    return scope;
  }

  /** A request ended. */
  leave(scope: Scope): void {
    if (scope.running > 0) scope.running--;
    scope.used = ++this.clock;
  }

  /** Forgets what a scope learnt, at once; running requests go on and learn anew. False if there is no such scope. */
  purge(name: string): boolean {
    const scope = this.scopes.get(name);
    if (scope === undefined) return false;
    clear(scope);
    scope.greedy = new Learnt();
    scope.sampled = new Learnt();
    if (scope.running === 0) this.scopes.delete(name);
    return true;
  }

  /** Makes room for a scope whose matrix wants to grow while the budget is spent; without effect otherwise. */
  relieve(scope: Scope): void {
    const { matrix } = scope;
    if (!matrix.wantsChunk || this.budget.used + matrix.chunkBytes <= this.budget.limit) return;
    let idle: Scope | undefined;
    let largest = scope;
    for (const other of this.scopes.values()) {
      if (other === scope || other.matrix.bytes + other.history.bytes === 0) continue;
      if (other.running === 0 && (idle === undefined || other.used < idle.used)) idle = other;
      if (other.matrix.bytes > largest.matrix.bytes) largest = other;
    }
    if (idle !== undefined) {
      if (!idle.matrix.releaseChunk()) clear(idle);
    } else if (largest.matrix.bytes >= matrix.bytes + 2 * matrix.chunkBytes) {
      largest.matrix.releaseChunk();
    }
  }

  private forgetOldest(): void {
    let oldest: Scope | undefined;
    for (const scope of this.scopes.values()) {
      if (scope.running === 0 && (oldest === undefined || scope.used < oldest.used)) oldest = scope;
    }
    if (oldest === undefined) return;
    clear(oldest);
    this.scopes.delete(oldest.name);
  }
}

function clear(scope: Scope): void {
  scope.matrix.clear();
  scope.history.clear();
}

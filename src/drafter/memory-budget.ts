/**
 * A hard bound in bytes that several matrices share. Whoever allocates takes first; a refusal means: make do with what
 * you have, or ask the holder of the budget to free something (scopes.ts).
 */
export class MemoryBudget {
  readonly limit: number;
  used = 0;

  /** @param limit bytes */
  constructor(limit: number) {
    this.limit = limit;
  }

  /** Reserves `bytes`; false, and nothing reserved, if the bound would be crossed. */
  take(bytes: number): boolean {
    if (this.used + bytes > this.limit) return false;
    this.used += bytes;
    return true;
  }

  give(bytes: number): void {
    this.used -= bytes;
  }
}

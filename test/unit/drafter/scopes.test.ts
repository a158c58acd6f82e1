import { describe, expect, it } from "@jest/globals";
import { type Scope, Scopes } from "../../../src/drafter/scopes.ts";

const MIB = 2 ** 20;

function fill(scopes: Scopes, scope: Scope, rows: number, from = 0): void {
  const ids = Int32Array.of(1);
  const probs = Float32Array.of(1);
  const rates = new Float64Array(3).fill(0.5);
  for (let i = from; i < from + rows; i++) {
    scopes.relieve(scope);
    scope.matrix.update(i, i + 1, ids, probs, 0, 1, rates);
  }
}

describe("Scopes", () => {
  it("keeps what scopes learn apart", () => {
    const scopes = new Scopes({ bytes: MIB, width: 12, historyTokens: 2 ** 12, most: 4 });
    const a = scopes.enter("a");
    const b = scopes.enter("b");
    fill(scopes, a, 10);
    expect(a.matrix.rowCount).toBe(10);
    expect(b.matrix.rowCount).toBe(0);
    expect(scopes.enter("a")).toBe(a);
    expect(scopes.rows).toBe(10);
  });

  it("forgets the idle scope used longest ago when there are too many", () => {
    const scopes = new Scopes({ bytes: MIB, width: 12, historyTokens: 2 ** 12, most: 2 });
    const a = scopes.enter("a");
    const b = scopes.enter("b");
    fill(scopes, a, 10);
    fill(scopes, b, 10);
    scopes.leave(b);
    scopes.enter("c");
    expect(scopes.count).toBe(2);
    expect(scopes.enter("a")).toBe(a);
    expect(scopes.rows).toBe(10);
  });

  it("never crosses the shared bound, whoever fills it", () => {
    const scopes = new Scopes({ bytes: MIB, width: 12, historyTokens: 2 ** 12, most: 8 });
    for (const name of ["a", "b", "c", "d"]) {
      const scope = scopes.enter(name);
      fill(scopes, scope, 12_000);
      expect(scopes.budget.used).toBeLessThanOrEqual(MIB);
      expect(scope.matrix.checkIntegrity()).toEqual([]);
    }
  });

  it("takes memory from an idle scope first", () => {
    const scopes = new Scopes({ bytes: MIB, width: 12, historyTokens: 2 ** 12, most: 8 });
    const idle = scopes.enter("idle");
    fill(scopes, idle, 12_000);
    scopes.leave(idle);
    const busy = scopes.enter("busy");
    fill(scopes, busy, 5_000);
    expect(busy.matrix.rowCount).toBeGreaterThan(4_900);
    expect(idle.matrix.rowCount).toBeGreaterThan(0);
    expect(idle.matrix.checkIntegrity()).toEqual([]);
  });

  it("lets a new scope grow to its share beside a running one that holds everything", () => {
    const scopes = new Scopes({ bytes: MIB, width: 12, historyTokens: 2 ** 12, most: 8 });
    const large = scopes.enter("large");
    fill(scopes, large, 12_000);
    const late = scopes.enter("late");
    fill(scopes, late, 12_000);
    expect(late.matrix.bytes).toBeGreaterThan(0.35 * MIB);
    expect(large.matrix.bytes).toBeGreaterThan(0.35 * MIB);
    expect(large.matrix.checkIntegrity()).toEqual([]);
  });

  it("purges at once, also while a request runs", () => {
    const scopes = new Scopes({ bytes: MIB, width: 12, historyTokens: 2 ** 12, most: 8 });
    const scope = scopes.enter("a");
    fill(scopes, scope, 100);
    expect(scopes.purge("a")).toBe(true);
    expect(scopes.rows).toBe(0);
    expect(scopes.budget.used).toBe(0);
    fill(scopes, scope, 5);
    expect(scopes.rows).toBe(5);
    scopes.leave(scope);
    expect(scopes.purge("a")).toBe(true);
    expect(scopes.count).toBe(0);
    expect(scopes.purge("a")).toBe(false);
  });
});

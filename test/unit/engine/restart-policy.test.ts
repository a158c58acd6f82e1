import { describe, expect, it } from "@jest/globals";
import { RestartPolicy } from "../../../src/engine/restart-policy.ts";

describe("RestartPolicy", () => {
  it("doubles the wait and gives up after five deaths within a minute", () => {
    const policy = new RestartPolicy();
    expect([0, 1000, 2000, 3000, 4000].map((now) => policy.onDeath(now, 0))).toEqual([
      500,
      1000,
      2000,
      4000,
      undefined,
    ]);
  });

  it("goes on for ever, up to 30 s apart, when deaths are further apart", () => {
    const policy = new RestartPolicy();
    const waits = Array.from({ length: 10 }, (_, i) => policy.onDeath(i * 20_000, 10_000));
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
  });

  it("begins anew after a minute of running", () => {
    const policy = new RestartPolicy();
    policy.onDeath(0, 0);
    policy.onDeath(10_000, 5000);
    expect(policy.onDeath(100_000, 60_000)).toBe(500);
  });

  it("forgets when told to", () => {
    const policy = new RestartPolicy({ maxDeaths: 2 });
    policy.onDeath(0, 0);
    policy.reset();
    expect(policy.onDeath(1, 0)).toBe(500);
    expect(policy.onDeath(2, 0)).toBeUndefined();
  });
});

import { execFileSync } from "node:child_process";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";

/** Five hundred once everything is compiled, which takes longer on a busy machine. */
const MOST_BYTES = 4000;

describe("a step", () => {
  it("leaves next to nothing to the garbage collector in link and drafter", () => {
    const script = path.resolve("scripts/step-garbage.ts");
    const text = execFileSync(process.execPath, ["--import", "tsx", script, "10000"], {
      encoding: "utf8",
      timeout: 300_000,
    });
    const [, bytes] = /^ *(\d+) bytes per step/.exec(text) ?? [];
    expect(Number(bytes)).toBeGreaterThan(0);
    expect(Number(bytes)).toBeLessThan(MOST_BYTES);
  }, 310_000);
});

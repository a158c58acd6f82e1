import { execFileSync } from "node:child_process";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";

const MOST_BYTES = 2000;

describe("a step", () => {
  it("leaves next to nothing to the garbage collector in link and drafter", () => {
    const script = path.resolve("scripts/step-garbage.ts");
    const text = execFileSync(process.execPath, ["--import", "tsx", script, "5000"], { encoding: "utf8" });
    const [, bytes] = /^ *(\d+) bytes per step/.exec(text) ?? [];
    expect(Number(bytes)).toBeGreaterThan(0);
    expect(Number(bytes)).toBeLessThan(MOST_BYTES);
  });
});

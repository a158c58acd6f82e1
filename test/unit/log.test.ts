import { describe, expect, it } from "@jest/globals";
import { RecentLines } from "../../src/log.ts";

describe("RecentLines", () => {
  it("keeps the last lines, and gives those after a number", () => {
    const lines = new RecentLines(3);
    expect(lines.since(0)).toEqual({ next: 0, lines: [] });
    lines.add("a\n");
    lines.add("b\n");
    expect(lines.since(0)).toEqual({ next: 2, lines: ["a", "b"] });
    expect(lines.since(1)).toEqual({ next: 2, lines: ["b"] });
    expect(lines.since(2)).toEqual({ next: 2, lines: [] });
    for (const line of "cdefghij") lines.add(line);
    expect(lines.since(0)).toEqual({ next: 10, lines: ["h", "i", "j"] });
    expect(lines.since(9)).toEqual({ next: 10, lines: ["j"] });
    expect(lines.since(99)).toEqual({ next: 10, lines: [] });
  });
});

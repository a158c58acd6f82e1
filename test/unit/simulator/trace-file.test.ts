import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { OffPath } from "../../../src/simulator/off-path.ts";
import { formatOffPath, formatText, readTraces } from "../../../src/simulator/trace-file.ts";
import { textTrace } from "./support/traces.ts";

let folder: string;
let file: string;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "traces-"));
  file = path.join(folder, "t.jsonl");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("trace files", () => {
  it("keep a text and what is known beside it", async () => {
    const trace = textTrace("a", [1, 2], [10, 11, 12], { k: 2, temperature: 0.8 });
    const known = new OffPath(2);
    const first = known.add(1, 50, [7, 8], [0.5, 0.25], 0);
    const second = known.add(~first, 51, [9, 10], [0.75, 0.125], 0);
    writeFileSync(file, formatText(trace) + formatOffPath("a", known, [second]));
    const { traces, cutOff } = await readTraces(file);
    expect(cutOff).toBe(false);
    expect(traces).toHaveLength(1);
    const [{ offPath, ...read }] = traces;
    expect(read).toEqual(trace);
    // the node above comes along
    expect(offPath?.count).toBe(2);
    const at = offPath?.find(1, 50) ?? -1;
    expect(offPath?.find(~at, 51)).toBe(1);
    expect(Array.from(offPath?.ids.subarray(2, 4) ?? [])).toEqual([9, 10]);
  });

  it("lose at most a last line that was cut off", async () => {
    const lines = formatText(textTrace("a", [1], [2, 3], {})) + formatText(textTrace("b", [1], [2, 3], {}));
    for (const cut of [1, 40, lines.length / 2 - 2]) {
      writeFileSync(file, lines.slice(0, lines.length - cut));
      const { traces, cutOff } = await readTraces(file);
      expect({ cut, ids: traces.map(({ id }) => id), cutOff: cut === 1 ? false : cutOff }).toEqual({
        cut,
        ids: cut === 1 ? ["a", "b"] : ["a"],
        cutOff: cut !== 1,
      });
    }
  });

  it.each([
    ["no JSON", "{", /:2 is no line of a trace/],
    ["a list", "[1]", /id/],
    [
      "ids of another length",
      '{"id":"x","prompt":[1],"tokens":[2],"k":2,"ids":[1],"probs":[1,0]}',
      /expected 2/,
    ],
    [
      "a token that is none",
      '{"id":"x","prompt":[-9e9],"tokens":[],"k":1,"ids":[],"probs":[]}',
      /prompt holds/,
    ],
    ["a text twice", formatText(textTrace("a", [1], [2, 3], {})).trim(), /"a" is taken/],
    [
      "nodes of no text",
      '{"of":"z","parents":[],"tokens":[],"k":1,"ids":[],"probs":[]}',
      /does not stand above/,
    ],
    [
      "a parent ahead",
      '{"of":"a","parents":[-1],"tokens":[5],"k":4,"ids":[1,2,3,4],"probs":[1,0,0,0]}',
      /range/,
    ],
    ["another version", '{"aded_trace":99}', /version/],
  ])("name the line that holds %s", async (_what, line, message) => {
    writeFileSync(file, `${formatText(textTrace("a", [1], [2, 3], {}))}${line}\n\n${line}\n`);
    await expect(readTraces(file)).rejects.toThrow(message);
    await expect(readTraces(file)).rejects.toMatchObject({ code: "ADED_BENCH" });
  });

  it("say which file is not there", async () => {
    await expect(readTraces(path.join(folder, "none"))).rejects.toMatchObject({ code: "ADED_BENCH" });
  });
});

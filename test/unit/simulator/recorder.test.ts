import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { AdedDrafter } from "../../../src/drafter/drafter.ts";
import { Recording, recordTraffic } from "../../../src/simulator/recorder.ts";
import { replay, replayEngine } from "../../../src/simulator/replay.ts";
import { readTraces } from "../../../src/simulator/trace-file.ts";
import { textTrace } from "./support/traces.ts";

let folder: string;
let file: string;
let ends: string[];

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "recorder-"));
  file = path.join(folder, "r.jsonl");
  ends = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const texts = [
  textTrace("a", [1, 2], [10, 11, 12, 10, 11, 12, 10, 11, 12], { k: 2 }),
  textTrace("b", [3], [10, 11, 12, 13], { k: 2, temperature: 0.7 }),
];

/** Replays texts through a recorded drafter. */
async function recorded(mostBytes?: number): Promise<void> {
  const info = replayEngine(texts, 7);
  const recording = new Recording(file, { onEnd: (reason) => ends.push(reason), mostBytes });
  const drafter = new AdedDrafter(info, { fixedNodes: 7 });
  recordTraffic(drafter, info, recording);
  replay(drafter, texts);
  expect(drafter.stats().tokens).toBeGreaterThan(0);
  await recording.close();
}

describe("recording", () => {
  it("gives the texts, their probabilities and the rejected nodes back, for whoever starts again too", async () => {
    await recorded();
    await recorded();
    const { traces, nVocab } = await readTraces(file);
    expect(nVocab).toBe(replayEngine(texts, 7).nVocab);
    expect(traces).toHaveLength(4);
    for (const [i, { id, offPath, category, ...trace }] of traces.entries()) {
      const { id: _id, category: _category, ...text } = texts[i % 2];
      expect(trace).toEqual(text);
      expect(offPath).toBeDefined();
    }
    expect(new Set(traces.map(({ id }) => id)).size).toBe(4);
    expect(ends).toEqual([]);
  });

  it("is readable by its owner only", async () => {
    await recorded();
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it("takes a line away that a crash broke off", async () => {
    await recorded();
    const whole = readFileSync(file, "utf8");
    appendFileSync(file, '{"step":0,"accep');
    await recorded();
    expect(readFileSync(file, "utf8")).toBe(whole + whole);
    writeFileSync(file, "broken from the first line on");
    await recorded();
    expect(readFileSync(file, "utf8")).toBe(whole);
  });

  it("stops before the file grows too large, and says so once", async () => {
    await recorded(400);
    await recorded(400);
    expect(statSync(file).size).toBeLessThanOrEqual(400);
    expect(ends.every((reason) => reason.includes("400"))).toBe(true);
    expect(ends.length).toBeGreaterThan(0);
  });

  it("lets drafting go on when there is nothing to write to", async () => {
    file = path.join(folder, "none", "r.jsonl");
    await recorded();
    expect(ends).toHaveLength(1);
  });
});

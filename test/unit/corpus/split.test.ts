import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import {
  jsonLayout,
  type Layout,
  type SplitFault,
  split,
  TEXT_PIECE_BYTES,
} from "../../../src/corpus/split.ts";

/** Cuts the text at the given places, as a stream may. */
async function* stream(text: string | Buffer, cuts: readonly number[] = []): AsyncGenerator<Buffer> {
  const bytes = Buffer.from(text as string);
  const at = [...new Set([0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort(
    (x, y) => x - y,
  );
  for (let i = 1; i < at.length; i++) yield bytes.subarray(at[i - 1], at[i]);
}

async function collect(
  text: string | Buffer,
  layout: Layout,
  { cuts = [], most }: { cuts?: readonly number[]; most?: number } = {},
): Promise<{ records: { line: number; text: string }[]; faults: SplitFault[] }> {
  const faults: SplitFault[] = [];
  const records: { line: number; text: string }[] = [];
  for await (const { line, bytes } of split(
    stream(text, cuts),
    layout,
    (fault) => faults.push(fault),
    most,
  )) {
    records.push({ line, text: bytes.toString() });
  }
  return { records, faults };
}

const cuts = fc.array(fc.nat(), { maxLength: 12 });

describe("cutting JSONL", () => {
  it("yields the lines with their numbers, without the blank ones", async () => {
    const { records } = await collect('{"a":1}\n\n  \n{"a":2}\r\n{"a":3}', "lines");
    expect(records).toEqual([
      { line: 1, text: '{"a":1}' },
      { line: 4, text: '{"a":2}\r' },
      { line: 5, text: '{"a":3}' },
    ]);
  });

  it("yields the same however the stream is cut", async () => {
    const line = fc.string({ unit: "grapheme" }).map((text) => JSON.stringify(text));
    await fc.assert(
      fc.asyncProperty(fc.array(line), cuts, async (lines, at) => {
        const { records } = await collect(lines.join("\n"), "lines", { cuts: at });
        expect(records.map(({ text }) => text)).toEqual(lines);
      }),
    );
  });

  it("names a record that is too large, and goes on after it", async () => {
    const text = `${"x".repeat(50)}\n${"y".repeat(500)}\nz`;
    const { records, faults } = await collect(text, "lines", { cuts: [120, 300, 400], most: 100 });
    expect(records.map(({ line }) => line)).toEqual([1, 3]);
    expect(faults).toEqual([{ line: 2, message: expect.stringContaining("larger than") }]);
  });
});

describe("cutting a JSON array", () => {
  it("yields its elements, whatever is in them and however the stream is cut", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.jsonValue()), fc.boolean(), cuts, async (values, pretty, at) => {
        const text = `\n ${JSON.stringify(values, null, pretty ? 2 : undefined)}\n`;
        const { records, faults } = await collect(text, "array", { cuts: at });
        expect(records.map((record) => JSON.parse(record.text) as unknown)).toEqual(
          JSON.parse(JSON.stringify(values)),
        );
        expect(faults).toEqual([]);
      }),
    );
  });

  it("knows the line of each element", async () => {
    const { records } = await collect('[\n{"a": "x,]"},\n\n{"b":\n[1]},\n3]', "array");
    expect(records.map(({ line }) => line)).toEqual([2, 4, 5]);
  });

  it("says where an array that does not end was lost", async () => {
    const { records, faults } = await collect('[{"a":1},\n{"b": "open', "array");
    expect(records).toHaveLength(1);
    expect(faults).toEqual([{ line: 2, message: expect.stringContaining("does not end") }]);
  });

  it("goes on after an element that is no JSON", async () => {
    const { records } = await collect('[{"a":1}, {broken}, {"c":3}]', "array");
    expect(records.map(({ text }) => text.trim())).toEqual(['{"a":1}', "{broken}", '{"c":3}']);
  });
});

describe("cutting a plain text", () => {
  it("leaves a small one whole", async () => {
    expect((await collect("one\ntwo\n", "text", { cuts: [2, 5] })).records).toEqual([
      { line: 1, text: "one\ntwo\n" },
    ]);
  });

  it("cuts a long one after lines, and loses nothing", async () => {
    const text = "0123456789\n".repeat(300_000);
    const { records } = await collect(text, "text", { cuts: [1_000_000, 2_500_000] });
    expect(records.length).toBeGreaterThan(1);
    expect(records.map((record) => record.text).join("") === text).toBe(true);
    for (const record of records) {
      expect(record.text.length).toBeLessThanOrEqual(2 * TEXT_PIECE_BYTES);
      expect(record.text.endsWith("\n")).toBe(true);
    }
    expect(records[1].line).toBe(records[0].text.length / 11 + 1);
  });

  it("never cuts a character in two", async () => {
    const text = "é€😀".repeat(400_000);
    const { records } = await collect(text, "text");
    expect(records.length).toBeGreaterThan(1);
    expect(records.map((record) => record.text).join("") === text).toBe(true);
  });
});

describe("telling the layout of JSON", () => {
  it.each([
    ['[{"a":1}]', "array"],
    ["\ufeff  \n[1]", "array"],
    ['{"a":[1]}\n', "lines"],
    ["", "lines"],
  ])("%j", (text, layout) => expect(jsonLayout(Buffer.from(text))).toBe(layout));
});

import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { SseReader } from "../../../src/bench/sse.ts";

describe("SseReader", () => {
  it("reads data of events, skips comments and other fields, takes CRLF", () => {
    const text = ": ping\n\nevent: x\ndata: one\n\ndata:two\r\n\r\ndata: a\ndata: b\n\ndata: unfinished\n";
    expect(new SseReader().push(Buffer.from(text))).toEqual(["one", "two", "a\nb"]);
  });

  it("reads the same events however the bytes are cut", () => {
    const data = Buffer.from('data: {"a":"ä€😀"}\n\ndata: [DONE]\n\n');
    fc.assert(
      fc.property(fc.array(fc.nat(data.length)), (cuts) => {
        const reader = new SseReader();
        const bounds = [0, ...cuts.sort((a, b) => a - b), data.length];
        const events = bounds.slice(1).flatMap((end, i) => reader.push(data.subarray(bounds[i], end)));
        expect(events).toEqual(['{"a":"ä€😀"}', "[DONE]"]);
      }),
    );
  });
});

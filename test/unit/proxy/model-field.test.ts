import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { topLevelString } from "../../../src/proxy/model-field.ts";

function model(text: string): string | undefined {
  return topLevelString(Buffer.from(text), "model");
}

describe("topLevelString", () => {
  it.each([
    ['{"model":"a"}', "a"],
    [' \n{ "model" : "a" , "x":1}', "a"],
    ['{"x":{"model":"inner"},"y":["model","z"],"model":"a"}', "a"],
    ['{"x":"\\"model\\":\\"no\\"","model":"a"}', "a"],
    ['{"model":"a","model":"b"}', "b"],
    ['{"model":"a","model":7}', undefined],
    ['{"mod\\u0065l":"a"}', "a"],
    ['{"model":"a\\"b\\\\"}', 'a"b\\'],
    ['{"x":"model","y":"a"}', undefined],
    ['{"model":null}', undefined],
    ['{"model":{"model":"a"}}', undefined],
    ['["model","a"]', undefined],
    ['"model"', undefined],
    ["", undefined],
    ["{", undefined],
    ['{"model', undefined],
    ['{"model":"a', undefined],
    ['\ufeff{"model":"a"}', "a"],
  ])("%s", (text, value) => {
    expect(model(text)).toBe(value);
  });

  it("agrees with JSON.parse on any object", () => {
    const key = fc.oneof(fc.constant("model"), fc.constant('mo"del'), fc.constant("\\"), fc.string());
    const value = fc.oneof(fc.string(), fc.jsonValue(), fc.dictionary(key, fc.string()));
    fc.assert(
      fc.property(
        fc.dictionary(key, value, { noNullPrototype: true }),
        fc.integer({ min: 0, max: 2 }),
        (object, indent) => {
          const expected: unknown = Object.hasOwn(object, "model") ? object.model : undefined;
          const found = model(JSON.stringify(object, null, indent));
          expect(found).toBe(typeof expected === "string" ? expected : undefined);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("never throws on any bytes", () => {
    const pieces = fc.constantFrom("{", "}", '"', "\\", ":", ",", "model", "[", "]", " ", "\xff");
    fc.assert(
      fc.property(fc.array(pieces), (text) => {
        expect(["string", "undefined"]).toContain(
          typeof topLevelString(Buffer.from(text.join(""), "latin1"), "model"),
        );
      }),
    );
  });
});

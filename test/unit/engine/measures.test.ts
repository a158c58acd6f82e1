import { writeFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "@jest/globals";
import { measuresFile, readMeasures } from "../../../src/engine/measures.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();

it("keeps a file for each program and model, and another one when either is replaced", () => {
  const model = path.join(home, "m.gguf");
  writeFileSync(model, "one");
  const first = measuresFile("/server", model);
  expect(path.dirname(first)).toBe(path.join(home, "measures"));
  expect(measuresFile("/server", model)).toBe(first);
  expect(measuresFile("/other", model)).not.toBe(first);
  writeFileSync(model, "longer");
  expect(measuresFile("/server", model)).not.toBe(first);
});

it("reads what engines wrote and leaves out what is damaged", () => {
  const file = measuresFile("/server", "/model");
  const good = { key: "m 1", tested_n: [2, 4], exact_n: [2], noise: 0.5, cost_n: [1], cost_us: [9] };
  writeFileSync(file, JSON.stringify([good, { key: 1 }, null, { ...good, exact_n: "x" }]));
  writeFileSync(measuresFile("/server", "/broken"), '[{"key":');
  expect(readMeasures()).toEqual([{ key: "m 1", tested: [2, 4], exact: [2], noise: 0.5 }]);
});

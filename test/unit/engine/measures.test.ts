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
  expect(readMeasures()).toEqual([
    { key: "m 1", model: "m", invariant: true, tested: [2, 4], exact: [2], noise: 0.5 },
  ]);
});

it("tells the model's name, and whether the kernels were off", () => {
  const keys = [
    "2; /my models/a b.gguf 1234 56 0bf830684227813a; build b7; fa -1, invariant 0, gpu layers -1",
    "name-in-router 1234 56 0bf830684227813a; build b7; fa -1, invariant -1, gpu layers -1",
  ];
  const entries = keys.map((key) => ({ key, tested_n: [2], exact_n: [2], noise: 0 }));
  writeFileSync(measuresFile("/server", "/named"), JSON.stringify(entries));
  const told = readMeasures().filter(({ key }) => keys.includes(key));
  expect(told.map(({ model, invariant }) => [model, invariant])).toEqual([
    ["a b.gguf", false],
    ["name-in-router", true],
  ]);
});

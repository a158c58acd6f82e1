import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import { findInputs, RECORD_ENDINGS } from "../../../src/corpus/inputs.ts";
import { scratchFolder } from "./support.ts";

const folder = scratchFolder();
for (const name of ["b.jsonl.gz", "a.json", "c.txt", "sub/d.PARQUET", "sub/e.py", ".git/f.json"]) {
  const file = path.join(folder, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, "12345");
}

const names = async (...options: Parameters<typeof findInputs>): Promise<string[]> =>
  (await findInputs(...options)).map(({ name }) => path.relative(folder, name));

describe("finding inputs", () => {
  it("takes from folders what ends as it should, in the order of the names, without what is hidden", async () => {
    expect(await names([folder], { endings: RECORD_ENDINGS })).toEqual([
      "a.json",
      "b.jsonl.gz",
      "sub/d.PARQUET",
    ]);
    expect(await names([folder])).toEqual(["a.json", "b.jsonl.gz", "c.txt", "sub/d.PARQUET", "sub/e.py"]);
  });

  it("takes what the patterns say", async () => {
    expect(await names([folder], { include: ["*.py", "?.txt"] })).toEqual(["c.txt", "sub/e.py"]);
  });

  it("takes files as they are named, with their size, and standard input", async () => {
    const file = path.join(folder, "c.txt");
    expect(await findInputs([file, "-"], { endings: RECORD_ENDINGS })).toEqual([
      { name: file, path: file, bytes: 5 },
      { name: "standard input", bytes: 0 },
    ]);
  });

  it("says what is missing", async () => {
    await expect(findInputs([path.join(folder, "nope")])).rejects.toThrow("there is no file or folder");
    await expect(findInputs([path.join(folder, "sub")], { include: ["*.rs"] })).rejects.toThrow(
      "no file (*.rs) in",
    );
  });
});

/** The same texts counted by DuckDB and by Apache Spark: row for row the same. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { BuildReport } from "../../src/corpus/build.ts";
import { literal, openDatabase } from "../../src/corpus/database.ts";
import type { CorpusDiff } from "../../src/corpus/diff.ts";
import { defaultModelName, ensureModel } from "../../src/engine/models.ts";
import { projectPath } from "../../src/home.ts";
import { aded } from "../unit/cli/support.ts";
import { pythonSources } from "./support/python-sources.ts";
import { ensureSpark, sparkCount } from "./support/spark.ts";
import { SETUP_MS } from "./support/stack.ts";

const TEXT_BYTES = 50e6;
const MINUTES = 60_000;

let folder: string;
let modelPath: string;
let python: string;
let inputs: string[];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-spark-"));
  modelPath = await ensureModel(defaultModelName);
  python = await ensureSpark();
  inputs = pythonSources(TEXT_BYTES, 4).map((lines, i) => {
    const file = path.join(folder, `stack-${i}.jsonl`);
    writeFileSync(file, lines);
    return file;
  });
}, SETUP_MS);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string): string => path.join(folder, name);

describe("the Spark job", () => {
  it(
    "counts 50 MB of real Python as DuckDB does, row for row",
    async () => {
      const how = ["--model", modelPath, "--format", "stack", "--language", "python"];
      const built = await aded([
        "corpus",
        "build",
        ...how,
        "--out",
        at("duckdb.parquet"),
        "--json",
        "--",
        ...inputs,
      ]);
      expect(built).toMatchObject({ status: 0 });
      const report = JSON.parse(built.stdout) as BuildReport;
      expect(report.text_bytes).toBeGreaterThan(TEXT_BYTES);

      // tokenised anew, cut into other parts, added up by Spark
      mkdirSync(at("work"));
      const map = [
        process.execPath,
        projectPath("bin", "aded.js"),
        "corpus",
        "build",
        ...how,
        "--workers",
        "1",
      ];
      const command = map.map((word) => `'${word}'`).join(" ");
      const args = ["--map", command, "--work", at("work"), "--out", at("counted"), "--inputs", ...inputs];
      await sparkCount(python, args, folder);

      // as it lies there, in the order of its files
      const database = await openDatabase({ memory: 512 * 2 ** 20 });
      const files = readdirSync(at("counted"))
        .filter((name) => name.endsWith(".parquet"))
        .sort();
      const list = files.map((name) => literal(at(path.join("counted", name)))).join(", ");
      const [{ rows, different }] = await database.rows<{ rows: number; different: number }>(
        `SELECT count(*) AS rows, count(*) FILTER (x.a <> y.a OR x.b <> y.b OR x.c <> y.c OR x.n <> y.n) AS different
       FROM (SELECT *, row_number() OVER () AS i FROM read_parquet([${list}])) x
       FULL JOIN (SELECT *, row_number() OVER () AS i FROM read_parquet(${literal(at("duckdb.parquet"))})) y USING (i)`,
        "test",
      );
      await database.close();
      expect({ rows, different }).toEqual({ rows: report.rows, different: 0 });

      // and as a corpus file made of it, which is checked against the totals and checksums of the tokenisers
      const merged = await aded(["corpus", "merge", "--out", at("spark.parquet"), at("counted")]);
      expect(merged).toMatchObject({ status: 0 });
      const diff = await aded(["corpus", "diff", at("duckdb.parquet"), at("spark.parquet"), "--json"]);
      expect(diff.status).toBe(0);
      expect(JSON.parse(diff.stdout) as CorpusDiff).toMatchObject({ same: report.rows, distance: 0 });
    },
    10 * MINUTES,
  );

  it("refuses parts that are unfinished", async () => {
    mkdirSync(at("unfinished"));
    const counting = sparkCount(python, ["--parts", at("unfinished"), "--out", at("never")], folder);
    await expect(counting).rejects.toThrow("holds no finished parts of a corpus");
  });
});

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import type { AbReport } from "../../../src/bench/ab-report.ts";
import { FakeServer, timings } from "./support/fake-server.ts";

const TSX = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
const MAIN = new URL("../../../src/cli/aded.ts", import.meta.url).href;
const RUN = `import(${JSON.stringify(MAIN)}).then(async (aded) => { process.exitCode = await aded.main(process.argv.slice(1)); })`;

describe("aded bench ab", () => {
  let server: FakeServer;
  let url: string;
  let folder: string;

  beforeEach(async () => {
    server = new FakeServer();
    server.answer = ({ arm }) => ({ armHeader: arm, timings: timings(5, arm === "on" ? 10 : 20) });
    url = await server.listen();
    folder = await mkdtemp(join(tmpdir(), "aded-bench-"));
  });

  afterEach(async () => {
    await server.close();
    await rm(folder, { recursive: true });
  });

  function aded(...args: string[]) {
    const child = spawn(process.execPath, ["--import", TSX, "--eval", RUN, "--", "bench", "ab", ...args]);
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const ended = once(child, "close").then(([status]) => ({ status: status as number, stdout, stderr }));
    return { child, ended };
  }

  const reportIn = async (path: string) => JSON.parse(await readFile(path, "utf8")) as AbReport;

  it("prints a table, writes JSON, CSV and Markdown, and hides the key", async () => {
    const json = join(folder, "r.json");
    const csv = join(folder, "r.csv");
    const md = join(folder, "r.md");
    const key = ["--api-key", "secret"];
    const files = ["--json", json, "--csv", csv, "--md", md];
    const { status, stdout } = await aded("--url", url, "--limit", "6", ...files, ...key).ended;
    expect(status).toBe(0);
    expect(stdout).toMatch(/^overall +2\.000 +2\.000 - 2\.000 +6$/m);
    const report = await reportIn(json);
    expect(report).toMatchObject({
      overall: { ratio: 2 },
      n: 6,
      same_text: 6,
      complete: true,
      arm_verified: true,
    });
    expect(report.environment).toMatchObject({ url, engine: { build: "b1-test", model: "toy", slots: 1 } });
    expect(report.environment.command).toContain("--api-key ***");
    expect(server.seen[0].headers.authorization).toBe("Bearer secret");
    expect((await readFile(csv, "utf8")).trim().split("\r\n")).toHaveLength(13);
    expect(await readFile(md, "utf8")).toContain("| overall | 2.000 |");
  }, 30_000);

  it("keeps what was measured on Ctrl-C", async () => {
    const json = join(folder, "r.json");
    const run = aded("--url", url, "--warmup", "0", "--json", json);
    server.answer = ({ arm }) => {
      if (server.seen.length < 6) return { armHeader: arm, timings: timings(5, 10) };
      run.child.kill("SIGINT");
      return { after: new Promise(() => {}) };
    };
    const { status, stdout } = await run.ended;
    expect(status).toBe(130);
    expect(stdout).toContain("(NOT COMPLETE)");
    expect(await reportIn(json)).toMatchObject({ complete: false, n: 2, samples: { length: 5 } });
  }, 30_000);

  it("says at once what is wrong", async () => {
    const [number, folderless, serverless] = await Promise.all([
      aded("--limit", "x").ended,
      aded("--json", "/nowhere/r.json").ended,
      aded("--url", "http://127.0.0.1:1").ended,
    ]);
    expect(number).toMatchObject({ status: 2, stderr: expect.stringContaining('--limit is "x"') });
    expect(folderless).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("cannot write /nowhere/r.json"),
    });
    expect(serverless).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("http://127.0.0.1:1 cannot be reached"),
    });
  }, 60_000);

  it("fails when no pair was answered", async () => {
    server.answer = () => ({ status: 500 });
    const { status, stderr } = await aded("--url", url, "--warmup", "0", "--limit", "2").ended;
    expect(stderr).toContain("no pair was answered");
    expect(status).toBe(1);
  }, 30_000);
});

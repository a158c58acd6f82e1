import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { runVerify, type VerifyOptions, type VerifySetup } from "../../../src/bench/verify.ts";
import { BatchCost } from "../../../src/bench/verify-tool.ts";
import { AdedError } from "../../../src/errors.ts";
import { processesWith } from "../cli/support.ts";

const FAKE = path.join(import.meta.dirname, "support", "fake-batch-cost.mjs");

let folder: string;
let log: string;
let setup: VerifySetup;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-verify-"));
  log = path.join(folder, "log");
  const program = path.join(folder, "llama-batch-cost");
  writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${FAKE}' "$@"\n`);
  chmodSync(program, 0o755);
  process.env.FAKE_LOG = log;
  setup = {
    program,
    own: { libraries: path.join(folder, "own"), batchInvariant: true },
    stock: { libraries: path.join(folder, "stock"), batchInvariant: false },
    modelPath: path.join(folder, "toy.gguf"),
    threads: 3,
    cacheType: "q8_0",
  };
});

afterEach(() => {
  delete process.env.FAKE_LOG;
  delete process.env.FAKE_DO;
  rmSync(folder, { recursive: true });
});

const options: VerifyOptions = { widths: [1, 8], depth: 256, checkDepths: [], rounds: 4, seed: 1 };

const logged = (): string[] => readFileSync(log, "utf8").trim().split("\n");

/** No child is left; each of them carries the folder on its command line. */
const left = (): string[] => processesWith(folder);

describe("runVerify", () => {
  it("starts both builds alike, each on its own libraries", async () => {
    const run = await runVerify(setup, options);
    expect(run.stopped).toBeUndefined();
    const starts = logged().filter((line) => line.includes(" start "));
    const args = `start -m ${setup.modelPath} -t 3 -c 768 -fa on -ctk q8_0 -ctv q8_0`;
    expect(starts).toEqual([`own ${args} invariant=true`, `stock ${args} invariant=false`]);
    expect(left()).toEqual([]);
  });

  it("measures turn by turn in a seeded order, and leaves out what warms up", async () => {
    const { samples, memory, system } = await runVerify(setup, options);
    expect([memory, system.stock]).toEqual([Array(12).fill(10), "CPU : FAKE = 1"]);
    expect(samples.own["8"]).toEqual(Array(4).fill([1801, 1802, 1803]));
    expect(samples.stock["1"]).toEqual(Array(4).fill([2001, 2002, 2003]));
    expect(samples.own.prefill).toEqual(Array(4).fill([1000 + 51200]));
    const measured = logged().filter((line) => /(time \d+ 4|prefill 512 1)$/.test(line));
    const rounds = measured.slice(2);
    expect(rounds).toHaveLength(4 * 3 * 2);
    const order: string[] = [];
    for (let i = 0; i < rounds.length; i += 2) {
      const [first, second] = [rounds[i].split(" "), rounds[i + 1].split(" ")];
      expect(first.slice(1)).toEqual(second.slice(1));
      expect(new Set([first[0], second[0]])).toEqual(new Set(["own", "stock"]));
      order.push(`${first[0]} ${first[2]}`);
    }
    expect(new Set(order).size).toBe(6);
    rmSync(log);
    await runVerify(setup, options);
    const again = logged().filter((line) => /(time \d+ 4|prefill 512 1)$/.test(line));
    expect(again).toEqual(measured);
    rmSync(log);
    await runVerify(setup, { ...options, seed: 2 });
    expect(logged().filter((line) => /(time \d+ 4|prefill 512 1)$/.test(line))).not.toEqual(measured);
  });

  it("checks before it measures, at all depths, with room in the cache for them", async () => {
    const run = await runVerify(setup, { ...options, checkDepths: [10, 3000], widths: [1, 8, 100] });
    expect(run.checked).toBe(true);
    expect(run.checks.own.map(({ depth, n, identical }) => [depth, n, identical])).toEqual(
      [10, 3000, 256].flatMap((depth) => [1, 8, 100].map((n) => [depth, n, true])),
    );
    expect(run.checks.stock.map(({ n, identical }) => [n, identical])).toEqual([
      [1, true],
      [8, false],
      [100, false],
    ]);
    const lines = logged();
    expect(lines[0]).toContain(" -c 3584 ");
    expect(lines).toContain("own check 8 64");
    expect(lines).toContain("own check 100 100");
    const firstTime = lines.findIndex((line) => line.includes(" time "));
    expect(lines.findLastIndex((line) => line.includes(" check "))).toBeLessThan(firstTime);
  });

  it("needs no stock build, and no rounds", async () => {
    const { samples, checked } = await runVerify({ ...setup, stock: undefined }, { ...options, rounds: 0 });
    expect([samples, checked]).toEqual([{ own: {}, stock: {} }, true]);
    expect(logged().every((line) => line.startsWith("own "))).toBe(true);
  });

  it("keeps what was measured when it is aborted, and leaves no child", async () => {
    const abort = new AbortController();
    const reason = new AdedError("ADED_INTERRUPTED", "interrupted");
    const run = await runVerify({ ...setup, signal: abort.signal }, options, ({ note }) => {
      if (note.startsWith("round 3")) abort.abort(reason);
    });
    expect(run.stopped).toBe(reason);
    expect(run.checked).toBe(true);
    const counts = Object.values(run.samples.own).map((rounds) => rounds.length);
    expect(Math.min(...counts)).toBeGreaterThanOrEqual(2);
    expect(Math.max(...counts)).toBeLessThanOrEqual(3);
    expect(left()).toEqual([]);
  });

  it("is aborted also while a child does not answer", async () => {
    process.env.FAKE_DO = "own check-8 hang";
    const abort = new AbortController();
    const running = runVerify({ ...setup, signal: abort.signal }, options, ({ done }) => {
      if (done === 1) setImmediate(() => abort.abort(new AdedError("ADED_INTERRUPTED", "interrupted")));
    });
    const run = await running;
    expect(run).toMatchObject({ checked: false, stopped: { code: "ADED_INTERRUPTED" } });
    expect(left()).toEqual([]);
  });

  it.each([
    ["stock time-8 die", "ended with status 3\nout of memory"],
    ["own check-8 refuse", "answered 'check 8 64': llama_decode answered 1"],
    ["own time-8 mumble", "answered 'time 8 1' strangely: what?"],
    ["stock depth-0 die", "ended with status 3"],
  ])("%s: says so, and ends the other child too", async (what, message) => {
    process.env.FAKE_DO = what;
    const { stopped } = await runVerify(setup, options);
    expect(stopped).toMatchObject({ code: "ADED_BENCH", message: expect.stringContaining(message) });
    expect(left()).toEqual([]);
  });

  it("says that the program can't be started", async () => {
    const { stopped } = await runVerify({ ...setup, program: path.join(folder, "nothing") }, options);
    expect(stopped).toMatchObject({ message: expect.stringContaining("could not be started") });
  });
});

describe("BatchCost", () => {
  it("takes a difference beyond all numbers for one that can't be told", async () => {
    process.env.FAKE_DO = "own check-8 differ";
    const tool = await BatchCost.start({ ...setup, ...setup.own, cells: 768 });
    try {
      expect(await tool.check(8, 64)).toEqual({ n: 8, identical: false, max_diff: null });
    } finally {
      await tool.close();
    }
    await expect(tool.time(1, 1)).rejects.toThrow("ended with SIGKILL");
  });
});

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { transformFile } from "@swc/core";
import { AdedDrafter } from "../../../src/drafter/drafter.ts";
import type { DrafterOptions } from "../../../src/drafter/options.ts";
import { Random } from "../../../src/drafter/random.ts";
import { readSnapshot, SnapshotDamage } from "../../../src/drafter/snapshot-file.ts";
import { SnapshotKeeper } from "../../../src/link/snapshot-keeper.ts";
import { cyclic, engineInfo, FakeEngine, GREEDY } from "./fake-engine.ts";

let folder: string;
let file: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "aded-snapshot-"));
  file = path.join(folder, "model.snapshot");
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const INFO = engineInfo();

function drafterOf(options: DrafterOptions = {}, info = INFO): AdedDrafter {
  return new AdedDrafter(info, { fixedNodes: 7, ...options });
}

/** Tokens and steps of one text. */
function run(drafter: AdedDrafter, scope: string, length = 120): { tokens: number; steps: number } {
  const engine = new FakeEngine(drafter, INFO, cyclic(60));
  engine.begin(0, [0], length, GREEDY, scope);
  let tokens = 0;
  let steps = 0;
  for (; engine.busy; steps++) tokens += engine.step();
  return { tokens, steps };
}

async function taughtFile(): Promise<AdedDrafter> {
  const drafter = drafterOf();
  run(drafter, "a", 400);
  run(drafter, "b");
  await drafter.save(file);
  return drafter;
}

describe("Snapshots", () => {
  it("make a new drafter as warm as the one that wrote them, scope by scope", async () => {
    const before = await taughtFile();
    const after = drafterOf();
    const loaded = after.load(file);
    expect(loaded).toMatchObject({ rows: before.stats().matrix.rows, bytes: statSync(file).size });
    expect(after.stats().matrix.bytes).toBeLessThanOrEqual(before.stats().matrix.bytes * 1.5);
    const cold = run(drafterOf(), "a");
    const warm = run(before, "a");
    expect(warm.steps).toBeLessThan(cold.steps);
    expect(run(after, "a")).toEqual(warm);
    expect(run(after, "nobody")).toEqual(cold);
  });

  it("hold only for their vocabulary", async () => {
    await taughtFile();
    const other = drafterOf({}, engineInfo({ vocabHash: "00000000000000bb" }));
    const { damage, rows } = other.load(file);
    expect(rows).toBe(0);
    expect(damage?.reason).toContain("another vocabulary");
    expect(existsSync(file)).toBe(false);
    expect(existsSync(damage!.aside)).toBe(true);
  });

  it("are moved aside with a reason when a byte is wrong, wherever, and when they are cut off", async () => {
    await taughtFile();
    const whole = readFileSync(file);
    const random = new Random(3);
    const damages: Buffer[] = [whole.subarray(0, 5), Buffer.concat([whole, Buffer.of(1)])];
    for (let i = 0; i < 40; i++) {
      const flipped = Buffer.from(whole);
      flipped[random.below(whole.length)] ^= 1 << random.below(8);
      damages.push(flipped, whole.subarray(0, random.below(whole.length)));
    }
    for (const bytes of damages) {
      writeFileSync(file, bytes);
      const drafter = drafterOf();
      const { damage, rows } = drafter.load(file);
      expect(damage?.reason).toBeTruthy();
      expect(rows).toBe(0);
      expect(drafter.stats().matrix).toMatchObject({ rows: 0, bytes: 0 });
      expect(readFileSync(damage!.aside).equals(bytes)).toBe(true);
    }
  });

  it("fit into less memory than they were written with, and a narrower row", async () => {
    const before = await taughtFile();
    const narrow = drafterOf({ matrixBytes: 2 ** 20, matrixWidth: 2 });
    expect(narrow.load(file).damage).toBeUndefined();
    const { rows, bytes, limit } = narrow.stats().matrix;
    expect(rows).toBeGreaterThan(0);
    expect(rows).toBeLessThanOrEqual(before.stats().matrix.rows);
    expect(bytes).toBeLessThanOrEqual(limit);
    expect(run(narrow, "a").tokens).toBe(120);
  });

  it("never hold what was purged while they were being written", async () => {
    const drafter = await taughtFile();
    const saving = drafter.save(file);
    expect(drafter.purge("a")).toBe(true);
    await saving;
    const after = drafterOf();
    after.load(file);
    expect(after.purge("a")).toBe(false);
    expect(after.purge("b")).toBe(true);
  });

  it("go on while a text is drafted, and stay whole", async () => {
    const drafter = await taughtFile();
    const engine = new FakeEngine(drafter, INFO, cyclic(90, 0.5));
    for (let round = 0; round < 5; round++) {
      engine.begin(0, [round], 100, GREEDY, "a");
      let saving = true;
      const saved = drafter.save(file).finally(() => {
        saving = false;
      });
      while (saving || engine.busy) {
        if (engine.busy) engine.step();
        await new Promise((resolve) => setImmediate(resolve));
      }
      await saved;
      expect(drafterOf().load(file).damage).toBeUndefined();
    }
  });

  it("are kept by their keeper: written at the end, taken in at the start, without a purged scope", async () => {
    const lines: string[] = [];
    const log = {
      debug: () => {},
      info: (_: object, message: string) => lines.push(message),
      warn: (_: object, message: string) => lines.push(message),
      error: () => {},
    };
    const keeperOf = () =>
      new SnapshotKeeper({ base: path.join(folder, "deep", "model"), everyMs: 1e6, log });
    const first = drafterOf();
    const keeper = keeperOf();
    keeper.attach(first, INFO);
    run(first, "a");
    run(first, "b");
    first.purge("b");
    await keeper.stop();
    const second = drafterOf();
    const later = [keeperOf(), keeperOf()];
    later[0].attach(second, INFO);
    expect(lines).toEqual(["the drafter knows what it learnt before"]);
    expect(second.purge("b")).toBe(false);
    expect(second.purge("a")).toBe(true);
    writeFileSync(path.join(folder, "deep", `model-${INFO.vocabHash}.snapshot`), "junk");
    later[1].attach(drafterOf(), INFO);
    expect(lines[1]).toContain("moved aside");
    for (const each of later) await each.stop();
  });

  it("survive a full disk: the last whole one stays, which is told once, and the next one is written", async () => {
    const warnings: object[] = [];
    const log = { debug() {}, info() {}, error() {}, warn: (fields: object) => warnings.push(fields) };
    const base = path.join(folder, "model");
    const kept = `${base}-${INFO.vocabHash}.snapshot`;
    const drafter = drafterOf();
    const keeper = new SnapshotKeeper({ base, everyMs: 1e6, log });
    keeper.attach(drafter, INFO);
    run(drafter, "a");
    await keeper.save();
    const before = readFileSync(kept);
    // the kernel's own device of that kind stands where the next snapshot is written before it is renamed
    const temporary = `${kept}.${process.pid}.tmp`;
    for (let attempt = 0; attempt < 2; attempt++) {
      symlinkSync("/dev/full", temporary);
      run(drafter, "b");
      await keeper.save();
      expect(existsSync(temporary)).toBe(false);
      expect(readFileSync(kept).equals(before)).toBe(true);
    }
    expect(warnings).toEqual([{ file: kept, reason: expect.stringContaining("ENOSPC") }]);
    await keeper.stop();
    const second = drafterOf();
    const next = new SnapshotKeeper({ base, everyMs: 1e6, log });
    next.attach(second, INFO);
    expect(second.purge("b")).toBe(true);
    await next.stop();
    expect(warnings).toHaveLength(1);
  });

  it("are written by one process only, which the others are told, until it is gone", async () => {
    const base = path.join(folder, "model");
    const kept = `${base}-${INFO.vocabHash}.snapshot`;
    const other = spawn("sleep", ["600"]);
    await once(other, "spawn");
    const stat = readFileSync(`/proc/${other.pid}/stat`, "latin1");
    const started = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    writeFileSync(`${kept}.lock`, `${other.pid} ${started}`);
    const warnings: unknown[] = [];
    const log = { debug() {}, info() {}, error() {}, warn: (fields: object) => warnings.push(fields) };
    const drafter = drafterOf();
    const keeper = new SnapshotKeeper({ base, everyMs: 1e6, log });
    keeper.attach(drafter, INFO);
    for (const scope of ["a", "b"]) {
      run(drafter, scope);
      await keeper.save();
    }
    expect(existsSync(kept)).toBe(false);
    expect(warnings).toEqual([{ file: kept, pid: other.pid }]);
    const gone = once(other, "exit");
    other.kill("SIGKILL");
    await gone;
    await keeper.stop();
    expect(existsSync(kept)).toBe(true);
    expect(readdirSync(folder)).toEqual([path.basename(kept)]);
  });

  it("survive kill -9 at any moment: what lies there is always whole", async () => {
    const source = fileURLToPath(new URL("../../../src/drafter/snapshot-file.ts", import.meta.url));
    const { code } = await transformFile(source, {
      jsc: { target: "es2023", parser: { syntax: "typescript" } },
      module: { type: "es6" },
    });
    writeFileSync(path.join(folder, "snapshot-file.mjs"), code);
    // writes one snapshot after the other; all records of one hold the same number
    writeFileSync(
      path.join(folder, "writer.mjs"),
      `import { writeSnapshot } from "./snapshot-file.mjs";
       function* records(n) {
         for (let i = 0; i < 20; i++) yield { head: { kind: "rows", n }, body: new Int32Array(5000).fill(n) };
         yield { head: { kind: "end" } };
       }
       for (let n = Number(process.argv[3]); ; n++) {
         await writeSnapshot(process.argv[2], records(n));
         process.stdout.write(".");
       }`,
    );
    const random = new Random(11);
    let found = 0;
    for (let kill = 0; kill < 60; kill++) {
      const writer = spawn(process.execPath, [path.join(folder, "writer.mjs"), file, String(kill * 1e6)]);
      await once(writer.stdout, "data");
      await new Promise((resolve) => setTimeout(resolve, random.below(25)));
      const gone = once(writer, "exit");
      writer.kill("SIGKILL");
      await gone;
      const numbers = new Set<number>();
      let records = 0;
      readSnapshot(file, (head, body, bytes) => {
        records++;
        numbers.add(Number(head.n));
        for (const value of new Int32Array(body, 0, bytes / 4)) numbers.add(value);
      });
      expect(records).toBe(20);
      expect(numbers.size).toBe(1);
      expect([...numbers][0]).toBeGreaterThanOrEqual(kill * 1e6);
      found++;
    }
    expect(found).toBe(60);
    // 60 processes are started: seconds on an idle machine, minutes on a busy one
  }, 900_000);

  it("say what is wrong with a file of another kind or version", () => {
    writeFileSync(file, "something else entirely");
    expect(() => readSnapshot(file, () => {})).toThrow(SnapshotDamage);
    const version = Buffer.from("ADEDSNAP\x07\0\0\0");
    writeFileSync(file, version);
    expect(() => readSnapshot(file, () => {})).toThrow("version is 7");
    expect(readSnapshot(path.join(folder, "nothing"), () => {})).toBeUndefined();
  });
});

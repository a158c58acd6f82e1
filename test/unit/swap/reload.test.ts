import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { AdedError } from "../../../src/errors.ts";
import { silentLog } from "../../../src/log.ts";
import { ConfigWatcher } from "../../../src/swap/reload.ts";

let folder: string;
let file: string;
let watcher: ConfigWatcher;
let reloads: number;
let fault: Error | undefined;
let next: () => void;

/** Resolves when the file is taken over once more. */
const reloaded = (): Promise<void> =>
  new Promise((resolve) => {
    next = resolve;
  });

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-reload-"));
  file = path.join(folder, "aded.yaml");
  writeFileSync(file, "a");
  reloads = 0;
  fault = undefined;
  const reload = async (): Promise<object> => {
    reloads++;
    setImmediate(() => next());
    if (fault !== undefined) throw fault;
    return {};
  };
  watcher = new ConfigWatcher({ file, reload, log: silentLog(), quietMs: 20 });
  watcher.start();
});
afterEach(async () => {
  await watcher.stop();
  rmSync(folder, { recursive: true });
});

it("reads the file again when it was written, and when an editor put another in its place", async () => {
  let done = reloaded();
  writeFileSync(file, "b");
  await done;
  done = reloaded();
  writeFileSync(`${file}.new`, "c");
  renameSync(`${file}.new`, file);
  await done;
  expect(reloads).toBe(2);
});

it("goes on watching after a file that can't be used", async () => {
  fault = new AdedError("ADED_CONFIG", "aded.yaml:1:1: bad");
  let done = reloaded();
  writeFileSync(file, "bad");
  await done;
  fault = undefined;
  done = reloaded();
  writeFileSync(file, "good");
  await done;
  expect(reloads).toBe(2);
});

it("reads it again on SIGHUP although nothing changed", async () => {
  const done = reloaded();
  process.emit("SIGHUP");
  await done;
  expect(reloads).toBe(1);
});

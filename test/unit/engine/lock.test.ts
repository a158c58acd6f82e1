import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import { acquireLock } from "../../../src/engine/lock.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();

describe("acquireLock", () => {
  it("lets one in at a time, and all in the end", async () => {
    const file = path.join(home, "one", "lock");
    let inside = 0;
    let most = 0;
    const visit = async (): Promise<void> => {
      const release = await acquireLock(file);
      inside++;
      most = Math.max(most, inside);
      await new Promise((resolve) => setImmediate(resolve));
      inside--;
      await release();
    };
    await Promise.all([visit(), visit(), visit()]);
    expect(most).toBe(1);
    expect(readdirSync(path.dirname(file))).toEqual([]);
  });

  it("takes the lock of a process that is gone", async () => {
    const child = spawn("true");
    const pid = child.pid;
    await once(child, "exit");
    const file = path.join(home, "stale");
    writeFileSync(file, `${pid} 12345`);
    const release = await acquireLock(file);
    await release();
    expect(existsSync(file)).toBe(false);
  });

  it("takes the lock of a process whose number another one has now", async () => {
    const file = path.join(home, "reused");
    writeFileSync(file, `${process.pid} 1`);
    await (await acquireLock(file))();
    expect(existsSync(file)).toBe(false);
  });

  it("tells whom it waits for, and stops waiting when aborted", async () => {
    const file = path.join(home, "held");
    const release = await acquireLock(file);
    const abort = new AbortController();
    const reason = new Error("enough");
    let owner = 0;
    const waiting = acquireLock(file, {
      signal: abort.signal,
      onWait: (pid) => {
        owner = pid;
        abort.abort(reason);
      },
    });
    await expect(waiting).rejects.toThrow();
    expect(owner).toBe(process.pid);
    await release();
    expect(readdirSync(home).filter((name) => name.startsWith("held"))).toEqual([]);
  });
});

import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, it } from "@jest/globals";
import { pauseWhile } from "../../../src/corpus/pauses.ts";
import { killGroup, spawnGroup } from "../../../src/engine/child.ts";

let pid = 0;
afterEach(() => killGroup(pid, "SIGKILL"));

/** A process that says something all the time. @returns resolves with true when it says something, with false after `ms` */
async function talker(): Promise<(ms: number) => Promise<boolean>> {
  const child = spawnGroup(process.execPath, ["-e", "setInterval(() => console.log('x'), 2)"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  pid = child.pid ?? 0;
  let words = 0;
  child.stdout?.on("data", () => words++);
  const speaks = async (ms: number): Promise<boolean> => {
    const before = words;
    const until = performance.now() + ms;
    while (words === before && performance.now() < until) await delay(5);
    return words > before;
  };
  expect(await speaks(20_000)).toBe(true);
  return speaks;
}

describe("a process that waits while somebody is being answered", () => {
  it("stands still when told to, and goes on", async () => {
    const speaks = await talker();
    let busy = false;
    const end = pauseWhile(pid, () => busy);
    expect(await speaks(20_000)).toBe(true);
    busy = true;
    // what was said before it stopped is still on its way
    while (await speaks(300));
    expect(await speaks(1000)).toBe(false);
    busy = false;
    expect(await speaks(20_000)).toBe(true);
    end();
  });

  it("has its turn now and then all the same", async () => {
    const speaks = await talker();
    const end = pauseWhile(pid, () => true);
    while (await speaks(300));
    expect(await speaks(20_000)).toBe(true);
    while (await speaks(300));
    end();
  });

  it("goes on when waiting is over", async () => {
    const speaks = await talker();
    const end = pauseWhile(pid, () => true);
    while (await speaks(300));
    end();
    expect(await speaks(20_000)).toBe(true);
  });

  it("may have ended meanwhile", async () => {
    await talker();
    const end = pauseWhile(pid, () => true);
    killGroup(pid, "SIGKILL");
    await delay(50);
    end();
  });
});

import { type SpawnOptions, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { text } from "node:stream/consumers";
import { describe, expect, it } from "@jest/globals";
import { spawnGroup } from "../../../src/engine/child.ts";
import { atLowPriority } from "../../../src/engine/low-priority.ts";

const AUTOGROUP = "/proc/self/autogroup";

async function output(start: typeof spawn | typeof spawnGroup, command: string[]): Promise<string> {
  const options: SpawnOptions = { stdio: ["ignore", "pipe", "inherit"] };
  const [program, ...args] = command;
  const child = start(program, args, options);
  return child.stdout === null ? "" : text(child.stdout);
}

/** Nice values of a process and of its session ("" where the kernel has no such thing). */
async function niceness(
  start: typeof spawn | typeof spawnGroup,
): Promise<[process: number, session: string]> {
  // field 19 of stat is the nice value (proc(5)); the name, field 2, is that of `cat`
  const command = atLowPriority("sh", "-c", `cat /proc/self/stat; cat ${AUTOGROUP} 2>/dev/null; true`);
  const [stat, group = ""] = (await output(start, command)).split("\n");
  return [Number(stat.split(" ")[18]), / nice (.*)$/.exec(group)?.[1] ?? ""];
}

describe("a command at low priority", () => {
  it("gets its arguments as they are", async () => {
    const given = ["two words", "$HOME `id`", "", "-n"];
    const program = "console.log(JSON.stringify(process.argv.slice(1)))";
    const command = atLowPriority(process.execPath, "-e", program, "--", ...given);
    expect(JSON.parse(await output(spawnGroup, command))).toEqual(given);
  });

  it("steps back, and its session too, unless that is another's", async () => {
    const before = existsSync(AUTOGROUP) ? "19" : "";
    expect(await niceness(spawnGroup)).toEqual([19, before]);
    const [own, session] = await niceness(spawn);
    expect(own).toBe(19);
    if (before !== "") expect(session).not.toBe("19");
  });
});

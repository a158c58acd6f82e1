import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "@jest/globals";
import { run, runChecked } from "../../../src/engine/child.ts";
import { projectPath } from "../../../src/home.ts";

/** True while the process is there and is no zombie. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const { readFileSync } = process.getBuiltinModule("node:fs");
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return process.platform !== "linux";
  }
}

async function untilGone(pid: number): Promise<void> {
  while (isRunning(pid)) await new Promise((resolve) => setImmediate(resolve));
}

describe("run", () => {
  it("gives status, stdout, stderr and lines", async () => {
    const lines: string[] = [];
    const result = await run("sh", ["-c", "echo a; echo b >&2; printf c; exit 3"], {
      onLine: (line, stream) => lines.push(`${stream}:${line}`),
    });
    expect(result).toEqual({ status: 3, stdout: "a\nc", stderr: "b" });
    expect(lines.sort()).toEqual(["stderr:b", "stdout:a", "stdout:c"]);
  });

  it("hands stdout's bytes to a sink", async () => {
    const chunks: Buffer[] = [];
    await run("sh", ["-c", "printf '\\000\\377'"], {
      onData: async (chunk) => {
        chunks.push(chunk);
      },
    });
    expect(Buffer.concat(chunks)).toEqual(Buffer.from([0, 255]));
  });

  it("fails when the sink fails, and leaves no process", async () => {
    const work = run("sh", ["-c", "echo x; sleep 60"], {
      onData: () => Promise.reject(new Error("disk full")),
    });
    await expect(work).rejects.toThrow("disk full");
  });

  it("ends the whole group when aborted, also what ignores SIGTERM", async () => {
    const abort = new AbortController();
    const pids: number[] = [];
    const work = run(
      "sh",
      [
        "-c",
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & echo $$; wait; sleep 60",
      ],
      {
        signal: abort.signal,
        onLine: (line) => {
          pids.push(Number(line));
          if (pids.length === 2) abort.abort(new Error("stop it"));
        },
      },
    );
    const started = performance.now();
    await expect(work).rejects.toThrow("stop it");
    expect(performance.now() - started).toBeLessThan(2000);
    for (const pid of pids) await untilGone(pid);
    expect(pids.map(isRunning)).toEqual([false, false]);
  });

  it("does not start when aborted before", async () => {
    await expect(run("true", [], { signal: AbortSignal.abort(new Error("too late")) })).rejects.toThrow(
      "too late",
    );
  });

  it("names a program that is not there, and the last lines of one that fails", async () => {
    await expect(runChecked("ADED_BUILD", "no-such-program-here", [])).rejects.toMatchObject({
      code: "ADED_BUILD",
    });
    await expect(runChecked("ADED_BUILD", "sh", ["-c", "echo because >&2; exit 4"])).rejects.toThrow(
      /status 4:\nbecause/,
    );
  });
});

describe("children", () => {
  it("do not outlive a parent that is killed", async () => {
    const script = `
      import { spawnGroup } from ${JSON.stringify(pathToFileURL(projectPath("src/engine/child.ts")).href)};
      const child = spawnGroup("sleep", ["600"], { stdio: "ignore" });
      console.log(child.pid);
      setInterval(() => {}, 1000);
    `;
    const parent = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script], {
      cwd: projectPath(),
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(createInterface({ input: parent.stdout }), "line")) as [string];
    const pid = Number(line);
    expect(isRunning(pid)).toBe(true);
    parent.kill("SIGKILL");
    await untilGone(pid);
    expect(isRunning(pid)).toBe(false);
  });
});

import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "@jest/globals";
import { isInstalled } from "../../../bin/ensure-install.js";
import { projectPath } from "../../../src/home.ts";
import { temporaryHome } from "../engine/support/temporary.ts";
import { processesWith } from "./support.ts";

const home = temporaryHome();

function clone(name: string): string {
  const folder = path.join(home, name);
  mkdirSync(folder);
  cpSync(projectPath("bin"), path.join(folder, "bin"), { recursive: true });
  for (const file of ["package.json", "package-lock.json", path.join("src", "typescript.mjs")])
    cpSync(projectPath(file), path.join(folder, file));
  return folder;
}

function npmStart(folder: string, npm: string) {
  const bin = path.join(folder, "path");
  mkdirSync(bin, { recursive: true });
  writeFileSync(path.join(bin, "npm"), `#!/bin/sh\n${npm}\n`, { mode: 0o755 });
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, TMPDIR: folder };
  return spawn(process.execPath, [path.join(folder, "bin", "start.js")], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
}

function lockFile(folder: string): string {
  return readdirSync(folder).find((name) => name.startsWith("aded-install-")) ?? "no lock file";
}

/** Resolves once stdout or stderr holds the text. */
function printed(child: ReturnType<typeof npmStart>, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let all = "";
    const more = (part: Buffer): void => {
      all += part;
      if (all.includes(text)) resolve();
    };
    child.stdout.on("data", more);
    child.stderr.on("data", more);
    child.once("close", () => reject(new Error(`it ended without printing ${text}:\n${all}`)));
  });
}

describe("isInstalled", () => {
  it("compares versions, and lets packages for other platforms be missing", () => {
    const folder = path.join(home, "versions");
    const write = (file: string, packages: object): void => {
      mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
      writeFileSync(path.join(folder, file), JSON.stringify({ packages }));
    };
    const lock = {
      "": { version: "0" },
      "node_modules/a": { version: "1" },
      "node_modules/b": { version: "2", optional: true },
    };
    write("package-lock.json", lock);
    expect(isInstalled(folder)).toBe(false);
    write("node_modules/.package-lock.json", { "node_modules/a": { version: "1" } });
    expect(isInstalled(folder)).toBe(true);
    write("node_modules/.package-lock.json", {
      "node_modules/a": { version: "1" },
      "node_modules/b": { version: "1" },
    });
    expect(isInstalled(folder)).toBe(false);
    write("node_modules/.package-lock.json", { "node_modules/b": { version: "2" } });
    expect(isInstalled(folder)).toBe(false);
  });
});

describe("npm start without packages", () => {
  it("runs npm ci, and says so when that fails", async () => {
    const child = npmStart(clone("failing"), 'echo "npm $*"; exit 1');
    let text = "";
    child.stdout.on("data", (part) => {
      text += part;
    });
    child.stderr.on("data", (part) => {
      text += part;
    });
    const [status] = await once(child, "close");
    expect(status).toBe(1);
    expect(text).toContain("npm ci --no-fund --no-audit");
    expect(text).toContain("npm ci failed");
  });

  it("lets one npm ci run at a time; whoever waited finds everything installed", async () => {
    const folder = clone("two");
    // installs no program, only what tells that everything is there
    const npm = `echo "npm ci" >> ran; mkdir -p node_modules; until [ -e go ]; do sleep 0.05; done; cp package-lock.json node_modules/.package-lock.json`;
    const first = npmStart(folder, npm);
    await printed(first, "installing the npm packages");
    const second = npmStart(folder, npm);
    await printed(second, `waiting for process ${first.pid}`);
    writeFileSync(path.join(folder, "go"), "");
    await Promise.all([once(first, "close"), once(second, "close")]);
    expect(readFileSync(path.join(folder, "ran"), "utf8")).toBe("npm ci\n");
  });

  it("waits for an npm ci whose starter was killed, but not for one that is gone", async () => {
    const folder = clone("killed");
    const first = npmStart(folder, `echo $$ > pid; : ${folder}; echo started; exec sleep 300`);
    await printed(first, "started");
    // npm is there, but has its starter noted it?
    const lock = (): string => readFileSync(path.join(folder, lockFile(folder)), "utf8");
    while (!/^\d+ \d+$/.test(lock())) await delay(20);
    first.kill("SIGKILL");
    await once(first, "exit");
    const second = npmStart(folder, "exit 1");
    await printed(second, "waiting for process");
    const npm = Number(readFileSync(path.join(folder, "pid"), "utf8"));
    process.kill(-npm, "SIGKILL");
    await printed(second, "npm ci failed");
    expect(await once(second, "close")).toEqual([1, null]);
  });

  it("ends npm and all that it started on Ctrl-C", async () => {
    const folder = clone("interrupted");
    const child = npmStart(
      folder,
      `trap '' TERM; echo started; sh -c 'sleep 300; : ${folder}' & wait; sleep 300`,
    );
    await once(child.stdout, "data");
    const sent = performance.now();
    child.kill("SIGINT");
    const [status] = await once(child, "close");
    expect(status).toBe(130);
    expect(performance.now() - sent).toBeLessThan(2000);
    expect(processesWith(folder)).toEqual([]);
  });
});

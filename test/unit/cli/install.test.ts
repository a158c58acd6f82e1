import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
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
  for (const file of ["package.json", "package-lock.json"])
    cpSync(projectPath(file), path.join(folder, file));
  return folder;
}

function npmStart(folder: string, npm: string) {
  const bin = path.join(folder, "path");
  mkdirSync(bin);
  writeFileSync(path.join(bin, "npm"), `#!/bin/sh\n${npm}\n`, { mode: 0o755 });
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
  return spawn(process.execPath, [path.join(folder, "bin", "start.js")], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
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

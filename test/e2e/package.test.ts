/** `npm pack` gives a package that runs where it was installed, in an otherwise empty folder: patches, overlay and pages included. */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { projectPath } from "../../src/home.ts";

const run = promisify(execFile);
const SLOW_MS = 10 * 60_000;

let folder: string;
let installed: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-pack-"));
  await run("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], { cwd: projectPath() });
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz")) ?? "";
  // what npm install does with a tarball, but for the packages that it needs, which are here already
  const modules = path.join(folder, "app", "node_modules");
  installed = path.join(modules, "aded");
  await mkdir(installed, { recursive: true });
  await run("tar", ["xzf", path.join(folder, tarball), "-C", installed, "--strip-components=1"]);
  for (const name of readdirSync(projectPath("node_modules"))) {
    if (name !== "aded" && name !== ".bin")
      symlinkSync(projectPath("node_modules", name), path.join(modules, name));
  }
  writeFileSync(path.join(folder, "app", "package.json"), "{}\n");
}, SLOW_MS);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function aded(...args: string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [path.join(installed, "bin", "aded.js"), ...args], {
    cwd: path.join(folder, "app"),
    env: { ...process.env, ADED_CONFIG: "" },
  });
  return stdout;
}

describe("the package", () => {
  it("holds what it needs, and no tests and nothing of whoever made it", () => {
    const files = readdirSync(installed, { recursive: true, encoding: "utf8" });
    expect(files).toEqual(
      expect.arrayContaining([
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "LLAMA_CPP_VERSION",
        "config/aded.yaml",
        "config/bench-ab.schema.json",
        "docs/quick-start.md",
        "patches/README.md",
        "patches/overlay/tools/server/server-draft-link.cpp",
        "src/page/dashboard.ts",
        "src/eval/run_program.py",
      ]),
    );
    expect(files.filter((name) => /^(test|node_modules|\.git|\.ci)(\/|$)/.test(name))).toEqual([]);
  });

  it(
    "runs, and finds the engine that was built from its patches",
    async () => {
      expect(await aded("--version")).toMatch(/^\d+\.\d+\.\d+\n$/);
      // the build's name is a hash of patches and overlay: the same engine means the same files
      const { stdout } = await run(process.execPath, [projectPath("bin", "aded.js"), "engine", "path"]);
      expect(await aded("engine", "path")).toBe(stdout);
      expect(await aded("completion", "bash")).toContain("complete -o default -F _aded aded");
    },
    SLOW_MS,
  );
});

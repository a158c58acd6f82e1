import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import { findProgram } from "../../../src/engine/tools.ts";
import { projectPath } from "../../../src/home.ts";
import { temporaryHome } from "../engine/support/temporary.ts";
import { aded, start } from "./support.ts";

const home = temporaryHome();

/** A PATH on which only these programs are. */
function pathWith(...programs: string[]): string {
  const folder = mkdtempSync(path.join(home, "path-"));
  for (const name of programs) symlinkSync(findProgram(name) as string, path.join(folder, name));
  return folder;
}

describe("aded", () => {
  it.each([
    [["--help"], "Commands:"],
    [["serve", "--help"], "--config <file>"],
    [["engine", "--help"], "refresh"],
    [["engine", "build", "--help"], "--stock"],
    [["models", "pull", "--help"], "--quantize"],
    [["doctor", "--help"], "--json"],
    [["--version"], "0."],
  ])("%j succeeds and helps", async (args, text) => {
    const { status, stdout } = await aded(args);
    expect([status, stdout]).toEqual([0, expect.stringContaining(text)]);
  });

  it.each([
    [["nonsense"]],
    [["serve", "--bad"]],
    [["engine"]],
    [["engine", "build", "--stock", "--asan"]],
    [["serve", "--config", "/nowhere/x.yaml"]],
  ])("%j is wrong usage: status 2, on stderr, without a stack", async (args) => {
    const { status, stdout, stderr } = await aded(args);
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).not.toBe("");
    expect(stderr).not.toContain("    at ");
  });

  it("a config whose model has no usable source is named by `config check`, and by `serve` before it listens", async () => {
    const file = path.join(home, "source.yaml");
    writeFileSync(file, "models: { odd: { source: nonsense } }");
    const { status, stderr } = await aded(["config", "check", file]);
    expect([status, stderr]).toEqual([
      2,
      expect.stringContaining(`${file}: models.odd.source: can't use 'nonsense'`),
    ]);
    expect((await aded(["serve", "--config", file])).stderr).toContain("can't use 'nonsense'");
  });

  it("prints message and hint of a failure, and the stack only with ADED_DEBUG=1", async () => {
    const plain = await aded(["models", "pull", "no-such-model"]);
    expect(plain.status).toBe(1);
    expect(plain.stderr).toMatch(/^aded: can't use 'no-such-model'.*\n {2}known names: /);
    expect(plain.stderr).not.toContain("    at ");
    expect((await aded(["models", "pull", "no-such-model"], { ADED_DEBUG: "1" })).stderr).toContain(
      "    at ",
    );
  });

  it("lists models as text and as JSON", async () => {
    mkdirSync(path.join(home, "models"));
    writeFileSync(path.join(home, "models", "own.gguf"), "12345");
    const { stdout } = await aded(["models", "list", "--json"]);
    const { known, files } = JSON.parse(stdout);
    expect(known[0]).toMatchObject({
      name: "SmolLM2-135M-Instruct",
      source: expect.stringMatching(/^pypi:/),
    });
    expect(files).toEqual([{ file: path.join(home, "models", "own.gguf"), bytes: 5 }]);
    expect((await aded(["models", "list"])).stdout).toContain("SmolLM2-135M-Instruct (default)");
  });

  it("says that the engine is not built, and how to build it", async () => {
    const { status, stderr } = await aded(["engine", "path", "--stock"]);
    expect([status, stderr]).toEqual([1, expect.stringContaining("npx aded engine build --stock")]);
  });

  it("names all missing tools at once: building, fetching and doctor", async () => {
    const env = { PATH: pathWith("sh", "make") };
    const build = await aded(["engine", "build"], env);
    expect(build.status).toBe(1);
    expect(build.stderr).toContain("missing on this machine: a C++ compiler, cmake, git\n");
    const pull = await aded(["models", "pull"], env);
    expect(pull.stderr).toContain("missing on this machine: python3, pip for python3\n");
    const serve = await aded(["serve"], { ...env, ADED_PORT: "0" });
    expect(serve.stderr).toContain(
      "missing on this machine: a C++ compiler, cmake, git, python3, pip for python3\n",
    );
    const doctor = await aded(["doctor", "--json"], env);
    expect(doctor.status).toBe(1);
    const { ok, checks } = JSON.parse(doctor.stdout);
    expect(ok).toBe(false);
    expect(checks.find(({ name }: { name: string }) => name === "tools")).toMatchObject({
      status: "fail",
      detail: "missing: a C++ compiler, cmake, git, python3, pip for python3",
    });
  });

  it("tells a port that is taken before it builds anything", async () => {
    const config = path.join(home, "remote.yaml");
    writeFileSync(config, "models: {far: {engine: 'unix:/nowhere/far.sock'}}");
    const first = start(["serve", "--config", config], { ADED_PORT: "0" });
    await first.printed("listening at");
    const port = /listening at http:\/\/127\.0\.0\.1:(\d+)/.exec(first.outcome.stdout)?.[1];
    const second = await aded(["serve"], { ADED_PORT: port });
    expect([second.status, second.stderr]).toEqual([
      1,
      expect.stringContaining(`port ${port} of 127.0.0.1 is in use`),
    ]);
    first.child.kill("SIGTERM");
    expect((await first.ended).status).toBe(0);
  });
});

describe("npm start", () => {
  it("is a script of this package, and so is every command that the README names", () => {
    const { scripts, bin } = JSON.parse(readFileSync(projectPath("package.json"), "utf8"));
    expect(Object.keys(scripts)).toEqual(
      expect.arrayContaining(
        "start test dev build lint format check test:unit test:faults test:e2e bench engine:build engine:fetch engine:apply engine:refresh".split(
          " ",
        ),
      ),
    );
    expect(bin).toEqual({ aded: "bin/aded.js", "aded-server": "bin/aded-server" });
  });
});

import path from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import { countCores, defaultThreads, engineArguments } from "../../../src/engine/args.ts";
import { findEngine, parseBuildLine, planEngine } from "../../../src/engine/build.ts";
import { findProgram, installHint, missingTools } from "../../../src/engine/tools.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();
const { PATH, CC, CXX } = process.env;

afterEach(() => {
  delete process.env.ADED_CMAKE_ARGS;
  for (const [name, value] of Object.entries({ PATH, CC, CXX })) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

describe("planEngine", () => {
  it("names the build after all that goes into it", async () => {
    const plans = [await planEngine(), await planEngine({ tests: true }), await planEngine({ stock: true })];
    plans.push(await planEngine({ flavour: "asan" }));
    process.env.ADED_CMAKE_ARGS = "-DGGML_CUDA=ON -DX=1";
    plans.push(await planEngine());
    const folders = plans.map(({ folder }) => folder);
    expect(folders[1]).toBe(folders[0]);
    expect(new Set(folders).size).toBe(4);
    expect(path.dirname(folders[0])).toBe(path.join(home, "engine"));
    expect(folders.map((folder) => path.basename(folder).split("-")[0])).toEqual([
      "patched",
      "patched",
      "stock",
      "asan",
      "patched",
    ]);
    expect(plans[4].flags).toEqual(expect.arrayContaining(["-DGGML_CUDA=ON", "-DX=1"]));
    expect([plans[0].testTargets, plans[2].testTargets]).toEqual([[], []]);
    expect(plans[1].testTargets).toContain("test-tree-attention");
    expect(plans.map(({ targets }) => targets.includes("llama-batch-cost"))).toEqual([
      true,
      true,
      false,
      true,
      true,
    ]);
  });

  it("does not take a build without a stamp for a build", async () => {
    expect(await findEngine()).toBeUndefined();
  });
});

describe("parseBuildLine", () => {
  it("reads ninja and make", () => {
    expect(parseBuildLine("[12/214] Building CXX object src/CMakeFiles/llama.dir/llama.cpp.o")).toEqual({
      done: 12,
      total: 214,
      note: "llama.cpp.o",
    });
    expect(parseBuildLine("[  7%] Built target ggml")).toEqual({ done: 7, total: 100, note: "ggml" });
    expect(parseBuildLine("ninja: no work to do.")).toBeUndefined();
    expect(parseBuildLine("/a/b.cpp:3: warning: [-Wall]")).toBeUndefined();
  });
});

describe("tools", () => {
  it("are all there, or named all at once", async () => {
    expect(await missingTools(["compiler", "cmake", "builder", "git", "python", "pip"])).toEqual([]);
    process.env.PATH = "/nowhere";
    expect(await missingTools(["compiler", "cmake", "builder", "git", "python", "pip"])).toEqual([
      "compiler",
      "cmake",
      "builder",
      "git",
      "python",
      "pip",
    ]);
  });

  it("are the compilers that CC and CXX name, where they name any", async () => {
    process.env.CXX = `${findProgram("c++")} -m64`;
    process.env.CC = "no-such-compiler";
    expect(await missingTools(["compiler"])).toEqual(["compiler"]);
    process.env.CC = "cc";
    expect(await missingTools(["compiler"])).toEqual([]);
    process.env.CXX = "/nowhere/c++";
    expect(await missingTools(["compiler"])).toEqual(["compiler"]);
  });

  it("come with the command of the package manager that is there", () => {
    const apt = findProgram("apt-get");
    const hint = installHint(["compiler", "pip"], apt ? path.dirname(apt) : "/nowhere");
    if (apt)
      expect(hint).toMatch(/^run: (sudo )?apt-get update && (sudo )?apt-get install -y g\+\+ python3-pip$/);
    expect(installHint(["git"], "/nowhere")).toContain("package manager");
  });
});

describe("the engine's command line", () => {
  it("adds threads unless they are given, and ends with what the user gave", () => {
    const base = { modelPath: "/m", httpSocket: "/h.sock" };
    const threads = String(defaultThreads());
    expect(engineArguments({ ...base, args: ["-c", "1"] })).toEqual([
      "-m",
      "/m",
      "--host",
      "/h.sock",
      "-t",
      threads,
      "-c",
      "1",
    ]);
    expect(engineArguments({ ...base, draftSocket: "/d.sock", args: ["--threads", "3"] })).toEqual([
      ...["-m", "/m", "--host", "/h.sock", "--draft-socket", "/d.sock"],
      ...["--threads", "3"],
    ]);
    expect(engineArguments({ ...base, draftSocket: "/d.sock", measuresFile: "/x.json", args: [] })).toContain(
      "--draft-measures",
    );
  });

  it("counts cores, not hyper-threads", () => {
    const cpu = (physical: number, core: number): string =>
      `processor : 0\nphysical id\t: ${physical}\ncore id\t\t: ${core}\n`;
    expect(countCores([cpu(0, 0), cpu(0, 1), cpu(0, 0), cpu(0, 1), cpu(1, 0)].join("\n"))).toBe(3);
    expect(countCores("processor : 0\nBogoMIPS : 50\n")).toBeUndefined();
    expect(defaultThreads()).toBeGreaterThanOrEqual(1);
  });
});

import { spawnSync } from "node:child_process";
import { describe, expect, it } from "@jest/globals";
import { ownHelp } from "../../../src/dropin/options.ts";
import { makePlan, shellText } from "../../../src/dropin/plan.ts";
import { AdedError } from "../../../src/errors.ts";
import { draftSchema } from "../../../src/options.ts";

const plan = (argv: string[], env: NodeJS.ProcessEnv = {}) => makePlan(argv, env, "1.2.3");

describe("what aded-server does with a command line", () => {
  it.each([
    ["a model", ["-m", "a.gguf"], {}, true],
    ["nothing, which is router mode", [], {}, true],
    ["drafts switched off by a flag", ["-m", "a.gguf", "--aded-drafts", "off"], {}, false],
    ["drafts switched off in the environment", ["-m", "a.gguf"], { ADED_DRAFTS: "off" }, false],
    ["a flag that contradicts the environment", ["--aded-drafts=on"], { ADED_DRAFTS: "off" }, true],
    ["a draft socket of the user's", ["--draft-socket", "/s"], {}, false],
    ["one in the environment", [], { LLAMA_ARG_DRAFT_SOCKET: "/s" }, false],
    ["embeddings only", ["-m", "a.gguf", "--embeddings"], {}, false],
    ["reranking in the environment", [], { LLAMA_ARG_RERANKING: "1" }, false],
    ["reranking switched off there", [], { LLAMA_ARG_RERANKING: "0" }, true],
    ["a question", ["--list-devices"], {}, false],
  ])("%s", (_name, argv, env, drafting) => {
    expect(plan(argv, env).drafting).toBe(drafting);
  });

  it("takes out its own flags, and no other argument", () => {
    const { args, drafts } = plan([
      "-m",
      "a b.gguf",
      "--aded-max-nodes",
      "7",
      "--aded-search=puct",
      "-np",
      "2",
    ]);
    expect(args).toEqual(["-m", "a b.gguf", "-np", "2"]);
    expect(drafts).toEqual(draftSchema.parse({ max_nodes: 7, search: "puct" }));
  });

  it.each([
    [["--aded-nodes", "7"], "--aded-nodes is no option"],
    [["--aded-max-nodes"], "--aded-max-nodes needs a value"],
    [["--aded-max-nodes", "65"], "--aded-max-nodes"],
    [["--aded-drafts", "maybe"], "--aded-drafts"],
  ])("%j is refused with status 2", (argv, message) => {
    try {
      plan(argv);
      throw new Error("it was taken");
    } catch (error) {
      expect(error).toBeInstanceOf(AdedError);
      expect((error as AdedError).exitStatus).toBe(2);
      expect((error as AdedError).message).toContain(message);
    }
  });

  it("help names every scalar option of the config file's drafts", () => {
    for (const key of ["max_nodes", "fixed_nodes", "top_k", "matrix_memory", "search"]) {
      expect(ownHelp()).toContain(`--aded-${key.replaceAll("_", "-")} `);
      expect(ownHelp()).toContain(`ADED_DRAFT_${key.toUpperCase()}`);
    }
  });
});

describe("the text for the shell", () => {
  it("hands every argument over as it is, whatever it holds", () => {
    const odd = ["", "a b", "it's", '"$HOME"', "`id`", "$(id)", "\\", "*", "new\nline", "é"];
    const meeting = { folder: "/run/it's", measures: "/m $x's.json" };
    const text = shellText(plan([...odd, "--aded-max-nodes", "3"]), "/usr/bin/printf", meeting);
    const script = `${text} printf '%s|' "$server" "$folder" "$@"; printenv LLAMA_ARG_DRAFT_MEASURES`;
    const told = (measures?: string): string => {
      const env = { PATH: process.env.PATH, ...(measures && { LLAMA_ARG_DRAFT_MEASURES: measures }) };
      return spawnSync("/bin/sh", ["-c", script, "sh", "old"], { env }).stdout.toString();
    };
    const args = ["/usr/bin/printf", "/run/it's", ...odd].map((arg) => `${arg}|`).join("");
    expect(told()).toBe(`${args}/m $x's.json\n`);
    expect(told("theirs")).toBe(`${args}theirs\n`);
  });

  it("leaves the arguments alone where none of ours is among them", () => {
    const { stdout } = spawnSync("/bin/sh", ["-c", `${shellText(plan(["x"]), "s")} echo "$@"`, "sh", "kept"]);
    expect(stdout.toString()).toBe("kept\n");
  });

  it.each([
    ["--help", "stdout", "--aded-max-nodes"],
    ["--version", "stderr", "aded-server 1.2.3"],
  ] as const)("%s: llama-server's own answer, then a part of ours, and its status", (flag, stream, part) => {
    const run = (program: string) => {
      const out = spawnSync("/bin/sh", ["-c", shellText(plan([flag]), program), "sh", flag]);
      return { status: out.status, text: out[stream].toString() };
    };
    expect(run("/bin/echo").text).toContain(part);
    expect(run("/bin/echo").status).toBe(0);
    const failed = run("/bin/false");
    expect(failed.status).toBe(1);
    expect(failed.text).not.toContain(part);
  });
});

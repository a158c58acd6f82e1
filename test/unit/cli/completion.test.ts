import { execFileSync } from "node:child_process";
import { describe, expect, it } from "@jest/globals";
import { Command } from "commander";
import { completionScript } from "../../../src/cli/completion.ts";

function program(): Command {
  const bench = new Command("bench").description("measure");
  bench.addCommand(
    new Command("ab").description("it's two arms").option("--url <url>", "a server").option("--resume"),
  );
  bench.addCommand(new Command("compare"));
  return new Command("aded").addCommand(new Command("serve").option("--config <file>")).addCommand(bench);
}

/** What bash would offer after these words. */
function offered(...words: string[]): string[] {
  const script = [
    completionScript("bash", program()),
    `COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")})`,
    `COMP_CWORD=${words.length - 1}`,
    '_aded; printf "%s\\n" "${COMPREPLY[@]}"',
  ].join("\n");
  return execFileSync("bash", ["-c", script], { encoding: "utf8" }).trim().split("\n");
}

describe("aded completion", () => {
  it("offers commands, their commands, and their options in bash", () => {
    expect(offered("aded", "")).toEqual(["serve", "bench", "--help"]);
    expect(offered("aded", "be")).toEqual(["bench"]);
    expect(offered("aded", "bench", "")).toEqual(["ab", "compare", "--help"]);
    expect(offered("aded", "bench", "ab", "--r")).toEqual(["--resume"]);
    expect(offered("aded", "bench", "ab", "--url", "http://x", "--u")).toEqual(["--url"]);
    expect(offered("aded", "serve", "--c")).toEqual(["--config"]);
  });

  it("quotes for fish, and lets zsh read bash's", () => {
    const fish = completionScript("fish", program());
    expect(fish).toContain("-a ab -d 'it\\'s two arms'");
    expect(fish).toContain(
      "__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from ab' -l url -r -d 'a server'",
    );
    expect(completionScript("zsh", program())).toMatch(/^autoload -U \+X bashcompinit/);
  });
});

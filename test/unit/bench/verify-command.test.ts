import { describe, expect, it } from "@jest/globals";
import { verifyCommand } from "../../../src/cli/bench-verify.ts";
import { aded } from "../cli/support.ts";
import { temporaryHome } from "../engine/support/temporary.ts";

temporaryHome();

describe("aded bench verify", () => {
  it.each([
    [["--widths", "1,x"], '--widths is "1,x"'],
    [["--widths", "600"], '--widths is "600"'],
    [["--widths", ""], '--widths is ""'],
    [["--depths", "10,-1"], '--depths is "10,-1"'],
    [["--reps", "1.5"], '--reps is "1.5"'],
    [["--threads", "0"], '--threads is "0"'],
  ])("%j is wrong usage", async (args, message) => {
    const parsing = verifyCommand().exitOverride().parseAsync(args, { from: "user" });
    await expect(parsing).rejects.toMatchObject({ code: "ADED_USAGE", exitStatus: 2, message });
  });

  it("says before it builds anything that a report can't be written", async () => {
    const { status, stdout, stderr } = await aded(["bench", "verify", "--json", "/nowhere/r.json"]);
    expect([status, stdout]).toEqual([1, ""]);
    expect(stderr).toContain("cannot write /nowhere/r.json");
  });
});

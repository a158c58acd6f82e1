import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import {
  applyPatches,
  hashPatches,
  listOverlay,
  listPatches,
  refreshPatches,
} from "../../../src/engine/patches.ts";
import { checkVersion, gitEnv, pinnedVersion } from "../../../src/engine/source.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();

function git(cwd: string, ...args: string[]): string {
  return execFileSync("git", args, { cwd, env: { ...process.env, ...gitEnv }, encoding: "utf8" });
}

function write(file: string, text: string): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
}

/** A tree with one commit, as the engine's bundle gives it. */
function sourceTree(name: string): string {
  const tree = path.join(home, name);
  write(path.join(tree, "a.txt"), "one\ntwo\nthree\n");
  write(path.join(tree, ".gitignore"), "build/\n");
  git(tree, "init", "--quiet");
  git(tree, "add", "-A");
  git(tree, "commit", "--quiet", "-m", "## SQUASHED ##");
  return tree;
}

/** A patch folder with two patches and an overlay, made by refreshing from a work tree. */
async function patchSeries(name: string): Promise<string> {
  const tree = sourceTree(`${name}-work`);
  for (const [from, to] of [
    ["two", "two, patched"],
    ["three", "three, patched"],
  ]) {
    write(path.join(tree, "a.txt"), readFileSync(path.join(tree, "a.txt"), "utf8").replace(from, to));
    git(tree, "commit", "--quiet", "-am", `Change ${from}`);
  }
  write(path.join(tree, "sub", "new.cpp"), "int x;\n");
  write(path.join(tree, "build", "junk.o"), "junk");
  const patchFolder = path.join(home, name);
  mkdirSync(patchFolder);
  await refreshPatches(tree, { patchFolder });
  return patchFolder;
}

describe("the patch series", () => {
  it("comes back the same after apply and refresh", async () => {
    const patchFolder = await patchSeries("series");
    expect(await listPatches(patchFolder)).toEqual(["0001-Change-two.patch", "0002-Change-three.patch"]);
    expect(await listOverlay(patchFolder)).toEqual(["sub/new.cpp"]);
    const before = readFileSync(path.join(patchFolder, "0001-Change-two.patch"), "utf8");
    expect(before.startsWith(`From ${"0".repeat(40)} `)).toBe(true);

    const tree = sourceTree("series-clone");
    await applyPatches(tree, { patchFolder });
    expect(readFileSync(path.join(tree, "a.txt"), "utf8")).toBe("one\ntwo, patched\nthree, patched\n");
    expect(readFileSync(path.join(tree, "sub", "new.cpp"), "utf8")).toBe("int x;\n");
    expect(await refreshPatches(tree, { patchFolder })).toEqual({
      patches: ["0001-Change-two.patch", "0002-Change-three.patch"],
      overlay: ["sub/new.cpp"],
    });
    expect(readFileSync(path.join(patchFolder, "0001-Change-two.patch"), "utf8")).toBe(before);
  });

  it("stops at a patch that does not apply, names it and says what to do", async () => {
    const patchFolder = await patchSeries("broken");
    const tree = sourceTree("broken-clone");
    write(path.join(tree, "a.txt"), "quite\nsomething\nelse\n");
    git(tree, "commit", "--quiet", "-am", "another version");
    await expect(applyPatches(tree, { patchFolder })).rejects.toMatchObject({
      code: "ADED_PATCH",
      message: expect.stringContaining("0001-Change-two.patch does not apply"),
      hint: expect.stringContaining("git am --continue"),
    });
    expect(existsSync(path.join(tree, "sub", "new.cpp"))).toBe(true);
  });

  it("is not refreshed from a tree that would lose something", async () => {
    const patchFolder = await patchSeries("careful");
    const bare = sourceTree("careful-bare");
    await expect(refreshPatches(bare, { patchFolder })).rejects.toThrow("holds none of the patches");
    await applyPatches(bare, { patchFolder });
    write(path.join(bare, "a.txt"), "changed\n");
    await expect(refreshPatches(bare, { patchFolder })).rejects.toThrow("not committed");
    await expect(refreshPatches(home, { patchFolder })).rejects.toMatchObject({ code: "ADED_USAGE" });
    expect(await listPatches(patchFolder)).toHaveLength(2);
  });

  it("drops an overlay file that the tree has no more", async () => {
    const patchFolder = await patchSeries("dropped");
    write(path.join(patchFolder, "overlay", "sub", "old.cpp"), "old\n");
    const tree = sourceTree("dropped-clone");
    await applyPatches(tree, { patchFolder });
    execFileSync("rm", [path.join(tree, "sub", "old.cpp")]);
    await refreshPatches(tree, { patchFolder });
    expect(readdirSync(path.join(patchFolder, "overlay", "sub"))).toEqual(["new.cpp"]);
  });

  it("gives the stock build its fixes and nothing else", async () => {
    const patchFolder = await patchSeries("fixes");
    const work = sourceTree("fixes-work2");
    await applyPatches(work, { patchFolder });
    const digest = async (fixesOnly: boolean): Promise<string> => {
      const hash = createHash("sha256");
      await hashPatches(hash, { patchFolder, fixesOnly });
      return hash.digest("hex");
    };
    const none = await digest(true);
    write(path.join(work, "b.txt"), "mended\n");
    git(work, "add", "b.txt");
    git(work, "commit", "--quiet", "-m", "fix : b was broken");
    await refreshPatches(work, { patchFolder });
    expect(await listPatches(patchFolder)).toContain("0003-fix-b-was-broken.patch");
    expect(await digest(true)).not.toBe(none);
    expect(await digest(true)).not.toBe(await digest(false));

    const tree = sourceTree("fixes-clone");
    await applyPatches(tree, { patchFolder, fixesOnly: true });
    expect(readFileSync(path.join(tree, "b.txt"), "utf8")).toBe("mended\n");
    expect(readFileSync(path.join(tree, "a.txt"), "utf8")).toBe("one\ntwo\nthree\n");
    expect(existsSync(path.join(tree, "sub"))).toBe(false);
  });

  it("has another hash when a name or a byte differs", async () => {
    const patchFolder = await patchSeries("hashed");
    const digest = async (): Promise<string> => {
      const hash = createHash("sha256");
      await hashPatches(hash, { patchFolder });
      return hash.digest("hex");
    };
    const seen = [await digest(), await digest()];
    expect(seen[0]).toBe(seen[1]);
    write(path.join(patchFolder, "overlay", "sub", "new.cpp"), "int y;\n");
    seen.push(await digest());
    write(path.join(patchFolder, "overlay", "sub", "more.cpp"), "");
    seen.push(await digest());
    expect(new Set(seen).size).toBe(3);
  });
});

describe("LLAMA_CPP_VERSION", () => {
  it("names the version that node-llama-cpp ships", async () => {
    expect(await checkVersion()).toBe(await pinnedVersion());
    expect(await pinnedVersion()).toMatch(/^v\d+\.\d+\.\d+$/);
  });
});

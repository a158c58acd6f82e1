/**
 * The patch series: patches/*.patch (call sites, applied in name order with `git am -3`) and patches/overlay/ (whole
 * new files, copied to the same path in the engine's tree). In a work tree the patches are commits and the overlay's
 * files are untracked, so that each goes back to where it came from.
 */
import { createHash, type Hash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import path from "node:path";
import { AdedError, messageOf } from "../errors.ts";
import { projectPath } from "../home.ts";
import { git } from "./source.ts";

export interface PatchOptions {
  /** @default patches/ of this program */
  patchFolder?: string;
  /** Only those that mend a fault of the engine itself, and no overlay: what the stock build gets. @default false */
  fixesOnly?: boolean;
  signal?: AbortSignal;
}

/** "0004-fix-…": mends a fault that the stock build could not be run with. */
const FIX = /^\d+-fix-/;

/** Names of the patch files, in the order in which they apply. */
export async function listPatches(patchFolder = projectPath("patches")): Promise<string[]> {
  const names = await readdir(patchFolder);
  return names.filter((name) => name.endsWith(".patch")).sort();
}

async function chosenPatches(patchFolder: string, { fixesOnly = false }: PatchOptions): Promise<string[]> {
  return (await listPatches(patchFolder)).filter((name) => !fixesOnly || FIX.test(name));
}

/** Paths of the overlay's files, relative to the overlay and so to the engine's tree. */
export async function listOverlay(patchFolder = projectPath("patches")): Promise<string[]> {
  const overlay = path.join(patchFolder, "overlay");
  if (!existsSync(overlay)) return [];
  const entries = await readdir(overlay, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(overlay, path.join(entry.parentPath, entry.name)))
    .sort();
}

/** Adds names and contents of the patches and overlay files that `applyPatches` would apply to a hash. */
export async function hashPatches(hash: Hash, options: PatchOptions = {}): Promise<void> {
  const patchFolder = options.patchFolder ?? projectPath("patches");
  const files = [
    ...(await chosenPatches(patchFolder, options)),
    ...(options.fixesOnly ? [] : await listOverlay(patchFolder)).map((name) => path.join("overlay", name)),
  ];
  for (const name of files) {
    hash.update(`${name}\0`).update(
      createHash("sha256")
        .update(await readFile(path.join(patchFolder, name)))
        .digest(),
    );
  }
}

/**
 * Copies the overlay into a fresh clone in `tree` and applies the series to it. The overlay comes first, so that it is
 * there when a patch fails and somebody goes on by hand.
 * @throws AdedError ADED_PATCH that names the patch and the next commands.
 */
export async function applyPatches(tree: string, options: PatchOptions = {}): Promise<void> {
  const patchFolder = options.patchFolder ?? projectPath("patches");
  if (!options.fixesOnly) await copyOverlay(tree, patchFolder);
  for (const name of await chosenPatches(patchFolder, options)) {
    const file = path.join(patchFolder, name);
    try {
      await git(["am", "-3", "--quiet", "--committer-date-is-author-date", file], {
        cwd: tree,
        signal: options.signal,
      });
    } catch (error) {
      options.signal?.throwIfAborted();
      throw new AdedError(
        "ADED_PATCH",
        `${name} does not apply to the engine's source:\n${messageOf(error)}`,
        {
          cause: error,
          hint: conflictHint(tree, name),
        },
      );
    }
  }
}

function conflictHint(tree: string, name: string): string {
  return [
    "to mend it:",
    "  npx aded engine apply work     # a work tree of your own; it stops at the same patch",
    "  cd work && git status          # mend the conflicts, git add the files, then",
    "  git am --continue && cd -      # and 'git am -3' for each patch after it",
    "  npx aded engine refresh work   # writes patches/ anew",
    `(what failed now is ${name} in ${tree})`,
  ].join("\n");
}

async function copyOverlay(tree: string, patchFolder: string): Promise<void> {
  for (const name of await listOverlay(patchFolder)) {
    const target = path.join(tree, name);
    await mkdir(path.dirname(target), { recursive: true });
    await copyFile(path.join(patchFolder, "overlay", name), target);
  }
}

/** Number of commits on top of the pinned source. @throws AdedError ADED_USAGE when `tree` is no work tree */
export async function countCommits(tree: string, signal?: AbortSignal): Promise<number> {
  if (!existsSync(path.join(tree, ".git"))) {
    throw new AdedError("ADED_USAGE", `${tree} is not a work tree of the engine`, {
      hint: "make one with: npx aded engine apply FOLDER",
    });
  }
  const base = await firstCommit(tree, signal);
  return Number(await git(["rev-list", "--count", `${base}..HEAD`], { cwd: tree, signal }));
}

/** The bundle holds one commit only, the pinned source. */
async function firstCommit(tree: string, signal?: AbortSignal): Promise<string> {
  return (await git(["rev-list", "--max-parents=0", "HEAD"], { cwd: tree, signal })).trim().split("\n")[0];
}

export interface RefreshResult {
  patches: string[];
  overlay: string[];
}

/**
 * Writes patches/ anew from a work tree: each commit since the pinned source becomes a patch file, each file that git
 * neither tracks nor ignores becomes an overlay file. Changes that are not committed are refused: they would be lost.
 */
export async function refreshPatches(tree: string, options: PatchOptions = {}): Promise<RefreshResult> {
  const patchFolder = options.patchFolder ?? projectPath("patches");
  const { signal } = options;
  const count = await countCommits(tree, signal);
  const changed = await git(["status", "--porcelain", "--untracked-files=no"], { cwd: tree, signal });
  if (changed.trim() !== "") {
    throw new AdedError("ADED_PATCH", `${tree} has changes that are not committed:\n${changed}`, {
      hint: "commit them, or fold them into the right patch: git commit --fixup=… && git rebase -i --autosquash",
    });
  }
  const base = await firstCommit(tree, signal);
  if (count === 0 && (await listPatches(patchFolder)).length > 0) {
    throw new AdedError(
      "ADED_PATCH",
      `${tree} holds none of the patches; refreshing from it would delete them`,
      {
        hint: "apply them first: npx aded engine apply FOLDER",
      },
    );
  }
  const untracked = await git(["ls-files", "--others", "--exclude-standard", "-z"], { cwd: tree, signal });
  const known = (await listOverlay(patchFolder)).filter((name) => existsSync(path.join(tree, name)));
  const overlay = [...new Set([...untracked.split("\0").filter((name) => name !== ""), ...known])].sort();

  for (const name of await listPatches(patchFolder)) await rm(path.join(patchFolder, name));
  await git(
    [
      "format-patch",
      "--quiet",
      "--no-signature",
      "--no-numbered",
      "--zero-commit",
      "-o",
      path.resolve(patchFolder),
      base,
    ],
    { cwd: tree, signal },
  );
  for (const name of await listOverlay(patchFolder)) {
    if (!overlay.includes(name)) await rm(path.join(patchFolder, "overlay", name));
  }
  for (const name of overlay) {
    const target = path.join(patchFolder, "overlay", name);
    if (!(await stat(path.join(tree, name))).isFile()) continue;
    await mkdir(path.dirname(target), { recursive: true });
    await copyFile(path.join(tree, name), target);
  }
  return { patches: await listPatches(patchFolder), overlay: await listOverlay(patchFolder) };
}

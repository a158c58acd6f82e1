/**
 * The engine's source: the git bundle of llama.cpp that the npm package node-llama-cpp ships. LLAMA_CPP_VERSION names
 * the version that the patches are made for.
 */
import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { AdedError } from "../errors.ts";
import { projectPath } from "../home.ts";
import { runChecked } from "./child.ts";

/** Git without the user's own settings: hooks, signing, line-end conversion and identities must not change what we build. */
export const gitEnv: NodeJS.ProcessEnv = {
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_TERMINAL_PROMPT: "0",
  GIT_AUTHOR_NAME: "aded",
  GIT_AUTHOR_EMAIL: "aded@localhost",
  GIT_COMMITTER_NAME: "aded",
  GIT_COMMITTER_EMAIL: "aded@localhost",
};

export interface GitOptions {
  cwd?: string;
  signal?: AbortSignal;
}

/** Runs git with `gitEnv`; returns stdout. @throws AdedError ADED_PATCH */
export function git(args: readonly string[], options: GitOptions = {}): Promise<string> {
  return runChecked("ADED_PATCH", "git", args, { ...options, env: { ...process.env, ...gitEnv } });
}

/** Folder of node-llama-cpp's llama.cpp files. Looked up like Node does: in node_modules here and in every parent. */
function llamaFolder(): string {
  for (let folder = projectPath(); ; folder = path.dirname(folder)) {
    const candidate = path.join(folder, "node_modules", "node-llama-cpp", "llama");
    if (existsSync(candidate)) return candidate;
    if (path.dirname(folder) === folder) break;
  }
  throw new AdedError(
    "ADED_BUILD",
    "the npm package node-llama-cpp, which holds the engine's source, is not installed",
    {
      hint: "run: npm ci",
    },
  );
}

export function bundlePath(): string {
  const file = path.join(llamaFolder(), "gitRelease.bundle");
  if (existsSync(file)) return file;
  throw new AdedError("ADED_BUILD", `${file} is missing`, { hint: "install the npm packages again: npm ci" });
}

/** The version in LLAMA_CPP_VERSION. */
export async function pinnedVersion(): Promise<string> {
  return (await readFile(projectPath("LLAMA_CPP_VERSION"), "utf8")).trim();
}

/** @throws AdedError ADED_PATCH when the bundle holds another version than the patches are made for. */
export async function checkVersion(): Promise<string> {
  const pinned = await pinnedVersion();
  const info = JSON.parse(await readFile(path.join(llamaFolder(), "llama.cpp.info.json"), "utf8")) as {
    tag?: unknown;
  };
  if (info.tag !== pinned) {
    throw new AdedError(
      "ADED_PATCH",
      `node-llama-cpp ships llama.cpp ${String(info.tag)}, but the patches are made for ${pinned}`,
      { hint: "run 'npm ci' to get the right one back, or port the patches as patches/README.md says" },
    );
  }
  return pinned;
}

/** SHA-256 (hex) of the bundle. About 50 ms. */
export async function bundleHash(): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(bundlePath(), { highWaterMark: 1 << 20 }), hash);
  return hash.digest("hex");
}

/** Clones the pinned source into `folder`, which must not exist. About two seconds. */
export async function cloneSource(folder: string, options: { signal?: AbortSignal } = {}): Promise<void> {
  await checkVersion();
  await git(["clone", "--quiet", "--no-tags", bundlePath(), folder], options);
}

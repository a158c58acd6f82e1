/**
 * Builds llama-server. Each build lies in a folder of its own under ADED_HOME/engine, named by a hash of all that goes
 * into it: source, patches, flags, compiler, CPU (builds are native). A stamp file, written last, says that it is whole;
 * without the stamp a build is resumed.
 */
import { createHash } from "node:crypto";
import { createWriteStream, existsSync, readFileSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, totalmem } from "node:os";
import path from "node:path";
import { AdedError } from "../errors.ts";
import { homePath } from "../home.ts";
import { type RunOptions, run } from "./child.ts";
import { acquireLock } from "./lock.ts";
import { applyPatches, hashPatches, listOverlay } from "./patches.ts";
import { silentProgress, type WorkOptions } from "./progress.ts";
import { bundleHash, checkVersion, cloneSource } from "./source.ts";
import { buildTools, findProgram, requireTools } from "./tools.ts";

/** Goes into the key: raise it when the way of building changes in a way that the flags don't show. */
const RECIPE = 1;
/** Memory that one compiler process may need, bytes; fewer run side by side where memory is short. */
const BYTES_PER_JOB = 1.25e9;
const LOG_TAIL_LINES = 30;
const TARGETS = ["llama-server", "llama-quantize"];
/** A program of the overlay: what a batch of n tokens costs. */
const BATCH_COST = "llama-batch-cost";

/** -O1 keeps the stacks of a report readable and the build short; no NDEBUG, so that asserts run too. */
const ASAN_FLAGS = [
  "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
  "-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O1 -g1",
  "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1",
  "-DLLAMA_SANITIZE_ADDRESS=ON",
];

export type EngineFlavour = "patched" | "stock" | "asan";

export interface EngineOptions extends WorkOptions {
  /** @default "patched"; "asan" is the patched engine with AddressSanitizer */
  flavour?: EngineFlavour;
  /** Short for `flavour: "stock"`. */
  stock?: boolean;
  /** Build the C++ tests of the overlay too. */
  tests?: boolean;
}

export interface EngineBuild {
  serverPath: string;
  quantizePath: string;
  /** Path of llama-batch-cost, which runs on the stock build's libraries too; undefined in the stock build itself. */
  batchCostPath?: string;
  buildDir: string;
  /** Paths of the C++ test programs; empty unless asked for. */
  testPaths: string[];
}

interface Stamp {
  version: string;
  targets: string[];
}

interface Plan {
  flavour: EngineFlavour;
  /** ADED_HOME/engine/<flavour>-<key> */
  folder: string;
  flags: string[];
  targets: string[];
  testTargets: string[];
}

/** Where the build is, or will be. Reads the bundle and asks the compiler for its version: about 0.1 s. */
export async function planEngine(options: EngineOptions = {}): Promise<Plan> {
  const flavour = options.flavour ?? (options.stock ? "stock" : "patched");
  const flags = cmakeFlags(flavour);
  const hash = createHash("sha256");
  hash.update(
    `${RECIPE}\n${await bundleHash()}\n${flags.join("\n")}\n${await compilerId(options.signal)}\n${cpuId()}\n`,
  );
  await hashPatches(hash, { fixesOnly: flavour === "stock" });
  const testTargets = options.tests && flavour !== "stock" ? await listTestTargets() : [];
  return {
    flavour,
    folder: homePath("engine", `${flavour}-${hash.digest("hex").slice(0, 12)}`),
    flags,
    targets: [...TARGETS, ...(flavour === "stock" ? [] : [BATCH_COST])],
    testTargets,
  };
}

/** The build if it is there and whole, without building anything. */
export async function findEngine(options: EngineOptions = {}): Promise<EngineBuild | undefined> {
  const plan = await planEngine(options);
  return (await isComplete(plan)) ? result(plan) : undefined;
}

/**
 * Builds the engine unless that is done already. Two processes that want the same build: one builds, the other waits.
 * @throws AdedError ADED_TOOLS_MISSING, ADED_PATCH, ADED_BUILD; the signal's reason when aborted
 */
export async function ensureEngine(options: EngineOptions = {}): Promise<EngineBuild> {
  const { signal, progress = silentProgress } = options;
  signal?.throwIfAborted();
  await requireTools(buildTools, signal);
  const plan = await planEngine(options);
  if (await isComplete(plan)) return result(plan);
  const release = await acquireLock(path.join(plan.folder, "lock"), {
    signal,
    onWait: (pid) => progress.line(`waiting for process ${pid}, which is building the same engine`),
  });
  try {
    if (await isComplete(plan)) return result(plan);
    const version = await checkVersion();
    await prepareSource(plan, options);
    await configure(plan, options);
    await compile(plan, options);
    await writeStamp(plan, version);
    return result(plan);
  } finally {
    await release();
  }
}

/** C++ tests in the overlay: every test-*.cpp is a CMake target of that name. */
async function listTestTargets(): Promise<string[]> {
  return (await listOverlay())
    .map((name) => path.basename(name))
    .filter((name) => /^test-.+\.cpp$/.test(name))
    .map((name) => name.slice(0, -".cpp".length));
}

function cmakeFlags(flavour: EngineFlavour): string[] {
  const flags = [
    ...(flavour === "asan" ? ASAN_FLAGS : ["-DCMAKE_BUILD_TYPE=Release"]),
    "-DGGML_NATIVE=ON",
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_BUILD_IS_DEV=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    // would fetch files from the network in the middle of the build
    "-DLLAMA_USE_PREBUILT_UI=OFF",
  ];
  // for a GPU backend: ADED_CMAKE_ARGS="-DGGML_CUDA=ON"
  const extra = process.env.ADED_CMAKE_ARGS?.trim();
  if (extra) flags.push(...extra.split(/\s+/));
  return flags;
}

async function compilerId(signal?: AbortSignal): Promise<string> {
  const compilers = [process.env.CC ?? "cc", process.env.CXX ?? "c++"];
  const versions = compilers.map(async (command) => {
    try {
      return `${command} ${(await run(command, ["--version"], { signal })).stdout}`;
    } catch {
      signal?.throwIfAborted();
      return `${command} unknown`;
    }
  });
  return (await Promise.all(versions)).join("\n");
}

/** Model and instruction sets of the CPU, which -march=native depends on. */
function cpuId(): string {
  let features = "";
  try {
    const info = readFileSync("/proc/cpuinfo", "utf8");
    features = /^(?:flags|Features)\s*:.*$/m.exec(info)?.[0] ?? "";
  } catch {}
  return `${process.platform} ${process.arch} ${cpus()[0]?.model ?? ""} ${features}`;
}

function stampPath(plan: Plan): string {
  return path.join(plan.folder, "stamp.json");
}

function binPath(plan: Plan, target: string): string {
  return path.join(plan.folder, "build", "bin", target);
}

async function isComplete(plan: Plan): Promise<boolean> {
  let stamp: Stamp;
  try {
    stamp = JSON.parse(await readFile(stampPath(plan), "utf8")) as Stamp;
  } catch {
    return false;
  }
  return [...plan.targets, ...plan.testTargets].every(
    (target) => stamp.targets.includes(target) && existsSync(binPath(plan, target)),
  );
}

async function writeStamp(plan: Plan, version: string): Promise<void> {
  const stamp: Stamp = { version, targets: [...plan.targets, ...plan.testTargets] };
  const draft = `${stampPath(plan)}.${process.pid}`;
  await writeFile(draft, `${JSON.stringify(stamp, null, 2)}\n`);
  await rename(draft, stampPath(plan));
}

function result(plan: Plan): EngineBuild {
  return {
    serverPath: binPath(plan, "llama-server"),
    quantizePath: binPath(plan, "llama-quantize"),
    batchCostPath: plan.targets.includes(BATCH_COST) ? binPath(plan, BATCH_COST) : undefined,
    buildDir: path.join(plan.folder, "build"),
    testPaths: plan.testTargets.map((target) => binPath(plan, target)),
  };
}

/** Clones and patches into a temporary folder and renames that to `src`: a `src` that is there is whole. */
async function prepareSource(plan: Plan, options: EngineOptions): Promise<void> {
  const source = path.join(plan.folder, "src");
  for (const name of await readdir(plan.folder)) {
    if (name.startsWith("src.new-")) await rm(path.join(plan.folder, name), { recursive: true, force: true });
  }
  if (existsSync(source)) return;
  const task = options.progress?.task("engine source", "steps");
  const fresh = path.join(plan.folder, `src.new-${process.pid}`);
  try {
    task?.update(0, 2, "cloning llama.cpp from node-llama-cpp's bundle");
    await cloneSource(fresh, options);
    task?.update(1, 2, "applying patches");
    await applyPatches(fresh, { signal: options.signal, fixesOnly: plan.flavour === "stock" });
    await rename(fresh, source);
    task?.end("done");
  } catch (error) {
    task?.end(options.signal?.aborted ? "interrupted" : "failed");
    await rm(fresh, { recursive: true, force: true });
    throw error;
  }
}

async function configure(plan: Plan, options: EngineOptions): Promise<void> {
  const build = path.join(plan.folder, "build");
  const ninja = findProgram("ninja") ?? findProgram("ninja-build");
  const generator = ninja ? "Ninja" : "Unix Makefiles";
  await removeIfOtherGenerator(build, generator);
  const launcher = findProgram("ccache") ? "ccache" : "";
  const flags = [
    ...plan.flags,
    `-DCMAKE_C_COMPILER_LAUNCHER=${launcher}`,
    `-DCMAKE_CXX_COMPILER_LAUNCHER=${launcher}`,
    ...(ninja ? [`-DCMAKE_MAKE_PROGRAM=${ninja}`] : []),
    ...(plan.testTargets.length > 0
      ? ["-DLLAMA_BUILD_TESTS=ON"]
      : existsSync(build)
        ? []
        : ["-DLLAMA_BUILD_TESTS=OFF"]),
  ];
  const task = options.progress?.task("engine configure", "steps");
  task?.update(0, 0, `cmake, ${generator}${launcher ? ", ccache" : ""}`);
  await runLogged(
    plan,
    "cmake",
    ["-S", path.join(plan.folder, "src"), "-B", build, "-G", generator, ...flags],
    options,
  )
    .then(() => task?.end("done"))
    .catch((error: unknown) => {
      task?.end(options.signal?.aborted ? "interrupted" : "failed");
      throw error;
    });
}

async function removeIfOtherGenerator(build: string, generator: string): Promise<void> {
  try {
    const cache = await readFile(path.join(build, "CMakeCache.txt"), "utf8");
    if (!cache.includes(`CMAKE_GENERATOR:INTERNAL=${generator}\n`))
      await rm(build, { recursive: true, force: true });
  } catch {}
}

async function compile(plan: Plan, options: EngineOptions): Promise<void> {
  const jobs = Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / BYTES_PER_JOB)));
  const level = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(jobs);
  const targets = [...plan.targets, ...plan.testTargets];
  const task = options.progress?.task("engine build", "steps");
  const onLine = (line: string): void => {
    const at = parseBuildLine(line);
    if (at) task?.update(at.done, at.total, at.note);
  };
  const args = ["--build", path.join(plan.folder, "build"), "--parallel", level, "--target", ...targets];
  try {
    await runLogged(plan, "cmake", args, { ...options, onLine });
    task?.end("done");
  } catch (error) {
    task?.end(options.signal?.aborted ? "interrupted" : "failed");
    throw error;
  }
}

export interface BuildLine {
  done: number;
  total: number;
  /** File or program being built. */
  note: string;
}

/** Reads ninja's `[12/214] Building CXX object a/b.cpp.o` and make's `[ 12%] Building CXX object a/b.cpp.o`. */
export function parseBuildLine(line: string): BuildLine | undefined {
  const match = /^\[\s*(\d+)(?:\/(\d+)|%)\]\s*(.*)$/.exec(line);
  if (!match) return undefined;
  const note = match[3].split(/[\s/]/).at(-1) ?? "";
  return { done: Number(match[1]), total: match[2] === undefined ? 100 : Number(match[2]), note };
}

/** Runs a step of the build with its output in build.log; on failure the error ends with the log's last lines. */
async function runLogged(
  plan: Plan,
  command: string,
  args: readonly string[],
  options: Pick<RunOptions, "signal" | "onLine">,
): Promise<void> {
  await mkdir(plan.folder, { recursive: true });
  const file = path.join(plan.folder, "build.log");
  const log = createWriteStream(file, { flags: "a" });
  const tail: string[] = [];
  try {
    log.write(`\n$ ${[command, ...args].join(" ")}\n`);
    const { status } = await run(command, args, {
      signal: options.signal,
      collect: false,
      env: {
        ...process.env,
        NINJA_STATUS: "[%f/%t] ",
        // objects are shared between build folders, also those of another ADED_HOME: no absolute path goes into their keys
        CCACHE_BASEDIR: plan.folder,
        CCACHE_NOHASHDIR: "1",
        CCACHE_SLOPPINESS: "time_macros",
      },
      onLine: (line, stream) => {
        log.write(`${line}\n`);
        if (parseBuildLine(line) === undefined || /FAILED/.test(line)) tail.push(line);
        if (tail.length > LOG_TAIL_LINES) tail.shift();
        options.onLine?.(line, stream);
      },
    });
    if (status !== 0) {
      throw new AdedError(
        "ADED_BUILD",
        `building the engine failed (status ${status}):\n${tail.join("\n")}`,
        {
          hint: `the whole log is in ${file}; what is done so far is kept, the same command goes on from there`,
        },
      );
    }
  } finally {
    await new Promise<void>((resolve) => log.end(resolve));
  }
}

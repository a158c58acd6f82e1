/**
 * `npm test`: sets up what is missing, runs every check and every test, and counts. The last line is "N passed, N failed".
 * `--only checks,unit,cpp,e2e,upstream` runs parts of it (upstream: some of the engine's own server tests). Plain JavaScript: on a fresh
 * clone nothing is installed yet.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { checkNode, ensureInstalled, root } from "../bin/ensure-install.js";

const node = process.execPath;
const bin = (name) => path.join(root, "node_modules", ...name.split("/"));
const JEST = ["--experimental-vm-modules", "--no-warnings", bin("jest/bin/jest.js")];
const MODELS = ["SmolLM2-135M-Instruct", "gemma-3-270m"];

let passed = 0;
let failed = 0;
let child;
let interrupted = false;

for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(name, () => {
    interrupted = true;
    kill("SIGTERM");
    setTimeout(() => kill("SIGKILL"), 1000).unref();
    setTimeout(() => process.exit(130), 1800).unref();
  });
}
process.on("exit", () => kill("SIGKILL"));

checkNode();
await ensureInstalled();
const parts = chosenParts();
const scratch = mkdtempSync(path.join(tmpdir(), "aded-test-"));
try {
  if (parts.has("checks")) await checks();
  if (parts.has("unit")) await jest("unit", "faults");
  if (parts.has("cpp") || parts.has("e2e")) await withEngine();
  if (parts.has("upstream")) await upstream();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
if (passed + failed === 0) {
  console.log("no test ran");
  failed = 1;
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

function chosenParts() {
  const all = ["checks", "unit", "cpp", "e2e", "upstream"];
  const at = process.argv.indexOf("--only");
  const chosen = at < 0 ? all : (process.argv[at + 1] ?? "").split(",");
  const unknown = chosen.filter((part) => !all.includes(part));
  if (unknown.length === 0) return new Set(chosen);
  console.error(`test: --only takes some of ${all.join(",")}, not "${unknown.join(",")}"`);
  process.exit(2);
}

async function checks() {
  await check("types", node, [bin("typescript/bin/tsc"), "-p", "."]);
  await check("lint and format", node, [bin("@biomejs/biome/bin/biome"), "check"]);
  await check("imports", node, ["--import", "tsx", "scripts/check-imports.ts"]);
  await check("config schema", node, ["--import", "tsx", "scripts/schema.ts", "--check"]);
}

/** What needs the engine. Each part that can't run because the engine or a model is missing counts as failed. */
async function withEngine() {
  const build = await check("engine build", node, ["bin/aded.js", "engine", "build", "--tests", "--json"]);
  const models = [];
  for (const name of MODELS) {
    // with F32 weights batches and single tokens agree closely, so that a wrong mask cannot hide in rounding noise
    const pull = ["bin/aded.js", "models", "pull", name, "--quantize", "F32", "--json"];
    const pulled = await check(`model ${name}`, node, pull);
    if (pulled.ok) models.push(JSON.parse(pulled.stdout).path);
  }
  const ready = build.ok && models.length === MODELS.length;
  if (parts.has("cpp")) {
    const programs = build.ok ? JSON.parse(build.stdout).testPaths : [];
    for (const program of programs) await cppTest(program, models);
    if (programs.length === 0) count("C++ tests", 0, 1, "none could run");
  }
  if (parts.has("e2e")) {
    if (ready) await jest("e2e", "browser");
    else count("e2e", 0, 1, "the engine or a model is missing");
  }
}

/**
 * Runs a test program of the overlay. Those for models run on mock models and on each model: trees with the stock kernels
 * and, bit by bit, with the batch-invariant ones; batches with the weights of the types most served.
 */
async function cppTest(program, models) {
  const name = path.basename(program);
  const runs = [[]];
  if (name === "test-tree-attention") {
    runs.push(
      ["-x"],
      ...models.flatMap((model) => [
        ["-m", model],
        ["-x", "-m", model],
      ]),
    );
  }
  if (name === "test-batch-invariance") {
    runs.push(
      ...models.slice(0, 1).map((model) => ["-m", model, "-T", "BF16,Q4_0,Q8_0,Q4_K_M", "-d", "10,600"]),
    );
  }
  for (const args of runs) {
    const title = [name, ...args.map((arg) => path.basename(arg))].join(" ");
    const { status, stdout } = await run(title, program, args);
    const match = /^(\d+) passed, (\d+) failed$/.exec(stdout.trimEnd().split("\n").at(-1) ?? "");
    const [, good, bad] = match ? match.map(Number) : [0, 0, 1];
    count(
      title,
      good,
      bad === 0 && (status !== 0 || good === 0) ? 1 : bad,
      status === 0 ? "" : `status ${status}`,
    );
  }
}

/** Some of the engine's own server tests, through aded-server. */
async function upstream() {
  const title = "the engine's own tests through aded-server";
  const { status, stdout } = await run(title, "scripts/test-upstream.sh", ["--listed"]);
  const match = /^(\d+) passed, (\d+) failed$/.exec(stdout.trimEnd().split("\n").at(-1) ?? "");
  const [, good, bad] = match ? match.map(Number) : [0, 0, 1];
  count(title, good, bad === 0 && (status !== 0 || good === 0) ? 1 : bad, match ? "" : `status ${status}`);
}

async function jest(...projects) {
  const title = `jest ${projects.join(" ")}`;
  const report = path.join(scratch, "jest.json");
  rmSync(report, { force: true });
  const args = [...JEST, "--selectProjects", ...projects, "--json", `--outputFile=${report}`];
  if (projects.includes("e2e")) args.push("--runInBand");
  const { status } = await run(title, node, args, { echo: "stderr" });
  let results;
  try {
    results = JSON.parse(readFileSync(report, "utf8"));
  } catch {
    return count(title, 0, 1, `no report, status ${status}`);
  }
  const bad = results.numFailedTests + results.numRuntimeErrorTestSuites;
  const none = results.numTotalTests === 0;
  count(title, results.numPassedTests, bad === 0 && (status !== 0 || none) ? 1 : bad, none ? "no tests" : "");
}

async function check(title, command, args) {
  const { status, stdout } = await run(title, command, args);
  count(title, status === 0 ? 1 : 0, status === 0 ? 0 : 1, status === 0 ? "" : `status ${status}`);
  return { ok: status === 0, stdout };
}

function count(title, good, bad, note) {
  passed += good;
  failed += bad;
  console.log(
    `${bad === 0 ? "ok    " : "FAILED"} ${title}: ${good} passed, ${bad} failed${note ? ` (${note})` : ""}`,
  );
}

/** Runs a program to its end in a group of its own, showing what it prints. */
async function run(title, command, args, { echo = "both" } = {}) {
  console.log(`\n--- ${title}`);
  child = spawn(command, args, { cwd: root, detached: true, stdio: ["ignore", "pipe", "inherit"] });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    stdout += text;
    if (echo === "both") process.stdout.write(text);
  });
  const status = await new Promise((resolve) => {
    child.on("error", (error) => {
      console.error(error.message);
      resolve(127);
    });
    child.on("close", (code) => resolve(code ?? 1));
  });
  kill("SIGKILL");
  child = undefined;
  if (interrupted) process.exit(130);
  return { status, stdout };
}

function kill(signal) {
  if (child?.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {}
}

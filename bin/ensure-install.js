/**
 * Installs the npm packages if that is still to be done. Plain JavaScript without dependencies: nothing is installed yet.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";

export const root = path.dirname(import.meta.dirname);

const MIN_NODE = [20, 18, 1];

/** Ends the process if this Node is too old. */
export function checkNode() {
  const have = process.versions.node.split(".").map(Number);
  const differs = MIN_NODE.findIndex((part, i) => part !== have[i]);
  if (differs === -1 || have[differs] > MIN_NODE[differs]) return;
  console.error(
    `aded: Node ${process.versions.node} is too old, ${MIN_NODE.join(".")} or later is needed (https://nodejs.org)`,
  );
  process.exit(1);
}

/**
 * Is every package of package-lock.json installed, in that version? npm writes node_modules/.package-lock.json last, so
 * after an interrupted npm ci it is not there. Contents are compared, not times: checking out another commit and back changes
 * times only. Packages for other platforms (optional ones) may be missing.
 */
export function isInstalled(folder = root) {
  // as a package of somebody else's project: npm has installed what this one needs before it put this one there
  if (path.basename(path.dirname(folder)) === "node_modules") return true;
  try {
    const wanted = readPackages(path.join(folder, "package-lock.json"));
    const installed = readPackages(path.join(folder, "node_modules", ".package-lock.json"));
    return Object.entries(wanted).every(
      ([name, { version, optional }]) =>
        name === "" || (name in installed ? installed[name].version === version : optional === true),
    );
  } catch {
    return false;
  }
}

function readPackages(file) {
  return JSON.parse(readFileSync(file, "utf8")).packages;
}

/** Runs `npm ci` if need be. Ctrl-C ends it, with all that it started, and this process with status 130. */
export async function ensureInstalled() {
  if (isInstalled()) return;
  const lock = await lockInstallation();
  // another process may just have done it
  if (!isInstalled()) await install(lock);
  lock.release();
}

async function install(lock) {
  console.error("aded: installing the npm packages (npm ci)");
  let child;
  let interrupted = false;
  // npm has nothing worth waiting for: the next npm ci begins anew
  const stop = () => {
    interrupted = true;
    kill(child, "SIGTERM");
    setTimeout(() => kill(child, "SIGKILL"), 300);
    setTimeout(() => process.exit(130), 1500);
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const name of signals) process.on(name, stop);
  child = spawn("npm", ["ci", "--no-fund", "--no-audit"], {
    cwd: root,
    detached: true,
    stdio: ["ignore", "inherit", "inherit"],
  });
  lock.add(child.pid);
  const status = await new Promise((resolve) => {
    child.on("error", (error) => {
      console.error(`aded: could not run npm: ${error.message}`);
      resolve(1);
    });
    child.on("exit", (code) => resolve(code ?? 1));
  });
  // whatever npm left behind in its group goes with it
  kill(child, "SIGKILL");
  for (const name of signals) process.off(name, stop);
  if (interrupted) process.exit(130);
  if (status !== 0) {
    console.error("aded: npm ci failed; mend what it says above and run the same command again");
    process.exit(1);
  }
}

/**
 * One installation at a time: a second npm ci would delete what the first one writes. The lock file lies outside of
 * node_modules, which npm ci empties, and holds process ids, ours and npm's: npm goes on when we are killed. Once all of them are gone
 * the lock is void.
 */
async function lockInstallation() {
  const name = createHash("sha256").update(root).digest("hex").slice(0, 12);
  const file = path.join(tmpdir(), `aded-install-${process.getuid?.() ?? 0}-${name}`);
  const release = () => {
    if (readOwners(file)[0] === process.pid) rmSync(file, { force: true });
  };
  const add = (pid) => writeFileSync(file, `${process.pid} ${pid ?? ""}`);
  for (let told = false; ; ) {
    try {
      writeFileSync(file, String(process.pid), { flag: "wx", mode: 0o600 });
      process.on("exit", release);
      return { add, release };
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    const owner = readOwners(file).find(isAlive);
    if (owner === undefined) rmSync(file, { force: true });
    else {
      if (!told) console.error(`aded: waiting for process ${owner}, which is installing the npm packages`);
      told = true;
      await delay(200);
    }
  }
}

function readOwners(file) {
  try {
    return readFileSync(file, "utf8").split(" ").map(Number).filter(Boolean);
  } catch {
    return [];
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code !== "ESRCH";
  }
}

function kill(child, signal) {
  if (child?.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {}
}

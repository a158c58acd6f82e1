/** Apache Spark in local mode, from PyPI, in a virtual environment under ADED_HOME. It needs a Java of version 17 or later. */
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { run, runChecked } from "../../../src/engine/child.ts";
import { acquireLock } from "../../../src/engine/lock.ts";
import { homePath, projectPath } from "../../../src/home.ts";

const VERSION = "3.5.7";

/** Path of a Python that has pyspark; installed first if need be. */
export async function ensureSpark(): Promise<string> {
  await requireJava();
  const folder = homePath(`spark-${VERSION}`);
  const python = path.join(folder, "bin", "python");
  const release = await acquireLock(`${folder}.lock`);
  try {
    if (existsSync(path.join(folder, "done"))) return python;
    await rm(folder, { recursive: true, force: true });
    await mkdir(path.dirname(folder), { recursive: true });
    // pip of the outer Python installs into it: not every system's Python can put a pip into a new environment
    await runChecked("ADED_DOWNLOAD", "python3", ["-m", "venv", "--without-pip", folder]);
    const pip = [
      "-m",
      "pip",
      "--python",
      python,
      "install",
      "--disable-pip-version-check",
      "--no-input",
      "--quiet",
    ];
    await runChecked("ADED_DOWNLOAD", "python3", [...pip, `pyspark==${VERSION}`]);
    await mkdir(path.join(folder, "done.tmp"));
    await rename(path.join(folder, "done.tmp"), path.join(folder, "done"));
    return python;
  } finally {
    await release();
  }
}

/** @throws Error that says what to install */
async function requireJava(): Promise<void> {
  const found = await run("java", ["-version"]).catch(() => undefined);
  const version = Number(/version "(\d+)/.exec(found?.stderr ?? "")?.[1]);
  if (version >= 17) return;
  const what = Number.isNaN(version) ? "which is not installed" : `and this is ${version}`;
  throw new Error(`Spark needs Java 17 or newer, ${what}: apt-get install default-jre-headless`);
}

/** Runs count.py in local mode. @throws Error with what it printed when it fails */
export async function sparkCount(python: string, args: readonly string[], temp: string): Promise<void> {
  const env = {
    ...process.env,
    PYSPARK_PYTHON: python,
    SPARK_LOCAL_DIRS: temp,
    SPARK_LOCAL_IP: "127.0.0.1",
    PYSPARK_SUBMIT_ARGS:
      "--master local[2] --driver-memory 1g --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=8 pyspark-shell",
  };
  const script = projectPath("src", "corpus", "spark", "count.py");
  const { status, stderr } = await run(python, [script, ...args], { env, cwd: temp });
  if (status !== 0) throw new Error(`count.py ended with status ${status}:\n${stderr}`);
}

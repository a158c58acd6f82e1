import { spawnSync } from "node:child_process";
import path from "node:path";
import { describe, expect, test } from "@jest/globals";

const ROOT = path.resolve(import.meta.dirname, "../..");

/** Runs a module in a process of its own: what prom-client sets up for a process can't be taken down again. */
function inProcess(source: string): string {
  const done = spawnSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", source], {
    cwd: ROOT,
    encoding: "utf8",
    timeout: 60_000,
  });
  if (done.status !== 0) throw new Error(done.stderr);
  return done.stdout;
}

describe("metrics of the process", () => {
  test("tell of memory and time, and wait without waking up", () => {
    const text = inProcess(`
      const { createMetrics } = await import("./src/metrics.ts");
      const { registry } = createMetrics({ process: true });
      const resources = process.resourceUsage();
      await new Promise((done) => setTimeout(done, 1500));
      const waited = process.resourceUsage().voluntaryContextSwitches - resources.voluntaryContextSwitches;
      console.log(JSON.stringify({ waited, names: (await registry.getMetricsAsJSON()).map(({ name }) => name) }));
      process.exit();
    `);
    const { waited, names } = JSON.parse(text) as { waited: number; names: string[] };
    expect(names).toEqual(
      expect.arrayContaining([
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "nodejs_eventloop_lag_seconds",
        "nodejs_gc_duration_seconds",
      ]),
    );
    expect(names.filter((name) => /eventloop_lag_(min|max|mean|stddev|p\d+)/.test(name))).toEqual([]);
    // a timer of 10 ms would make it 150
    expect(waited).toBeLessThan(75);
  });
});

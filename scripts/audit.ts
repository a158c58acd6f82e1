/**
 * `npm run audit`: known faults in the packages of package-lock.json, as the registry knows them. Status 1 for one that is "high" or
 * "critical". Not every registry answers this question: then it says that nothing was checked, and fails only with --strict.
 */
import { spawnSync } from "node:child_process";

interface Report {
  metadata?: { vulnerabilities?: Record<string, number>; dependencies?: { total?: number } };
  vulnerabilities?: Record<string, { severity: string; range: string; fixAvailable: unknown }>;
  error?: { code?: string; summary?: string };
  message?: string;
}

const strict = process.argv.includes("--strict");
const { stdout } = spawnSync("npm", ["audit", "--json", "--audit=true"], {
  encoding: "utf8",
  timeout: 120_000,
});
let report: Report = {};
try {
  report = JSON.parse(stdout) as Report;
} catch {
  report = { error: { summary: "npm audit gave no report" } };
}
const found = report.metadata?.vulnerabilities;
if (found === undefined) {
  console.log(
    `NOT CHECKED: ${report.error?.summary || report.message || report.error?.code || "the registry does not answer"}`,
  );
  process.exit(strict ? 1 : 0);
}
for (const [name, { severity, range, fixAvailable }] of Object.entries(report.vulnerabilities ?? {})) {
  console.log(`${severity}: ${name} ${range}${fixAvailable ? ", mended in a later version" : ""}`);
}
const grave = (found.high ?? 0) + (found.critical ?? 0);
console.log(
  `${report.metadata?.dependencies?.total ?? 0} packages checked: ${grave} high or critical, ${found.total ?? 0} in all`,
);
process.exit(grave === 0 ? 0 : 1);

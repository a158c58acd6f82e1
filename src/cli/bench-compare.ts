/** `aded bench compare`: two reports of `aded bench ab` against each other. */
import path from "node:path";
import { Command } from "commander";
import { readReport } from "../bench/ab-file.ts";
import { type Bound, parseBound } from "../bench/bounds.ts";
import { compareReports } from "../bench/compare.ts";
import { formatCompare } from "../bench/compare-format.ts";
import { bounds, failUnlessKept } from "./bench-ab.ts";
import { save } from "./bench-support.ts";
import { decimal } from "./values.ts";

interface CompareFlags {
  failBelow?: number;
  failSpeedupBelow?: number;
  bound?: Bound[];
  json?: string | true;
}

export function compareCommand(): Command {
  return new Command("compare")
    .description("hold a second report of bench ab against a first one, prompt by prompt")
    .argument("<a>", "JSON report of the first run (before)")
    .argument("<b>", "JSON report of the second run (after)")
    .option(
      "--fail-below <r>",
      "exit status 1 unless B's on-arm is at least r times as fast as A's (interval's lower end)",
      decimal("--fail-below", 0),
    )
    .option("--bound <exprs...>", "exit status 1 unless they hold: speedup.ratio>=0.95", bounds)
    .option("--json [file]", "write the comparison as JSON; to stdout without a file")
    .action(compare);
}

async function compare(a: string, b: string, flags: CompareFlags): Promise<void> {
  const [first, second] = await Promise.all([readReport(a), readReport(b)]);
  const report = compareReports(
    { name: path.basename(a), report: first },
    { name: path.basename(b), report: second },
  );
  const text = `${JSON.stringify(report)}\n`;
  if (typeof flags.json === "string") await save(flags.json, text);
  process.stdout.write(flags.json === true ? text : formatCompare(report));
  const wanted = [...(flags.bound ?? [])];
  if (flags.failBelow !== undefined) {
    wanted.push(parseBound(`${report.on.ci === null ? "on.ratio" : "on.ci.0"}>=${flags.failBelow}`));
  }
  failUnlessKept(report, wanted);
}

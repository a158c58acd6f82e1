/** A/B reports as files: read for a comparison, or to go on with a run that was broken off. */
import { readFile } from "node:fs/promises";
import { AdedError, messageOf } from "../errors.ts";
import type { AbOptions } from "./ab.ts";
import type { AbReport } from "./ab-report.ts";
import { abReportSchema } from "./ab-schema.ts";

/**
 * @param missing "none": a file that is not there gives undefined
 * @throws AdedError ADED_BENCH when it cannot be read or is no such report
 */
export async function readReport(path: string, options: { missing: "none" }): Promise<AbReport | undefined>;
export async function readReport(path: string): Promise<AbReport>;
export async function readReport(path: string, options?: { missing: "none" }): Promise<AbReport | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (options?.missing === "none" && (error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new AdedError("ADED_BENCH", `cannot read the report ${path}: ${messageOf(error)}`, {
      hint: "Name a file that aded bench ab --json FILE wrote.",
      cause: error,
    });
  }
  try {
    return abReportSchema.parse(JSON.parse(text)) as unknown as AbReport;
  } catch (error) {
    throw new AdedError("ADED_BENCH", `${path} is no report of aded bench ab`, {
      hint: "Name a file that this version's aded bench ab --json FILE wrote.",
      cause: error,
    });
  }
}

/** The report, if a run with these options and prompts can go on with it. @throws AdedError ADED_BENCH when it cannot */
export function resumable(
  report: AbReport | undefined,
  { options, promptsHash }: { options: AbOptions; promptsHash: string },
): AbReport | undefined {
  if (report === undefined) return undefined;
  const now = JSON.parse(
    JSON.stringify({ ...options, prompts: options.prompts.length, prompts_hash: promptsHash }),
  ) as Record<string, unknown>;
  const then = report.options as unknown as Record<string, unknown>;
  const differing = [...new Set([...Object.keys(now), ...Object.keys(then)])].filter(
    (key) => JSON.stringify(now[key]) !== JSON.stringify(then[key]),
  );
  if (differing.length > 0) {
    throw new AdedError("ADED_BENCH", `the run to be resumed had other options: ${differing.join(", ")}`, {
      hint: "Give the same options and prompts as then, or another file after --json.",
    });
  }
  return report;
}

/** Writes the JSON Schemas under config/: of the config file, and of the reports of `aded bench ab`. `--check`: only says whether they are current. */
import { readFileSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { abReportSchema } from "../src/bench/ab-schema.ts";
import { projectPath } from "../src/home.ts";
import { configSchema } from "../src/options.ts";

const schemas: readonly { file: string; title: string; schema: z.ZodType }[] = [
  { file: "aded.schema.json", title: "ADED config", schema: configSchema },
  { file: "bench-ab.schema.json", title: "Report of aded bench ab", schema: abReportSchema },
];

for (const { file, title, schema } of schemas) {
  const path = projectPath("config", file);
  const text = `${JSON.stringify({ title, ...z.toJSONSchema(schema, { io: "input", target: "draft-7" }) }, null, 2)}\n`;
  if (!process.argv.includes("--check")) {
    writeFileSync(path, text);
  } else if (read(path) !== text) {
    console.error(`config/${file} is out of date; run: npm run schema`);
    process.exitCode = 1;
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

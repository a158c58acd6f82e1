/** Writes config/aded.schema.json, from which editors complete and check config files. `--check`: only says whether it is current. */
import { readFileSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { projectPath } from "../src/home.ts";
import { configSchema } from "../src/options.ts";

const file = projectPath("config", "aded.schema.json");
const schema = z.toJSONSchema(configSchema, { io: "input", target: "draft-7" });
const text = `${JSON.stringify({ title: "ADED config", ...schema }, null, 2)}\n`;

if (!process.argv.includes("--check")) {
  writeFileSync(file, text);
} else if (readFileSync(file, "utf8") !== text) {
  console.error("config/aded.schema.json is out of date; run: npm run schema");
  process.exitCode = 1;
}

/** Runs the command line, which is TypeScript, in this very process. */
import { runTypeScript } from "../src/typescript.mjs";
import { checkNode, ensureInstalled } from "./ensure-install.js";

export async function run(argv) {
  checkNode();
  await ensureInstalled();
  await runTypeScript();
  const { main } = await import("../src/cli/aded.ts");
  process.exit(await main(argv));
}

/** Runs the command line, which is TypeScript, in this very process. */
import { checkNode, ensureInstalled } from "./ensure-install.js";

export async function run(argv) {
  checkNode();
  await ensureInstalled();
  const { register } = await import("tsx/esm/api");
  register();
  const { main } = await import("../src/cli/aded.ts");
  process.exit(await main(argv));
}

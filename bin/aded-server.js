/**
 * What bin/aded-server is to do, as shell text on file descriptor 3 (standard output is for people here).
 *
 *   node bin/aded-server.js PID ARGUMENTS…     PID: the process that will be llama-server
 */
import { writeFileSync } from "node:fs";
import { runTypeScript } from "../src/typescript.mjs";
import { checkNode, ensureInstalled } from "./ensure-install.js";

checkNode();
const pid = Number(process.argv[2]);
// whoever ended that process wants no build to go on
setInterval(() => {
  try {
    process.kill(pid, 0);
  } catch {
    process.kill(process.pid, "SIGTERM");
  }
}, 500).unref();
await ensureInstalled();
await runTypeScript();
const { main } = await import("../src/cli/aded-server.ts");
process.exit(await main(pid, process.argv.slice(3), (text) => writeFileSync(3, text)));

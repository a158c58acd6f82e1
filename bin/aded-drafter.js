/**
 * The drafter beside llama-server, started by bin/aded-server; ends with status 0 when that server is gone.
 *
 *   node bin/aded-drafter.js FOLDER [PID-OF-THE-SERVER]
 */
import { runTypeScript } from "../src/typescript.mjs";

await runTypeScript();
const { main } = await import("../src/dropin/beside.ts");
process.exit(await main(process.argv[2], Number(process.argv[3])));

// Lets the counting workers run TypeScript. `--import tsx` in a worker's execArgv has no effect on Node 20, so that is done inside the
// thread.
import { runTypeScript } from "../typescript.mjs";

await runTypeScript();
await import("./build-worker.ts");

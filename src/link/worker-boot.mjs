// Lets the drafter's worker thread run TypeScript. `--import tsx` in a worker's execArgv has no effect on Node 20, so the
// loader is registered from inside the thread.
import { runTypeScript } from "../typescript.mjs";

await runTypeScript();
await import("./worker.ts");

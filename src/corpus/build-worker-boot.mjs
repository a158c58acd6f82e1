// Lets the counting workers run TypeScript. `--import tsx` in a worker's execArgv has no effect on Node 20, so the
// loader is registered from inside the thread.
import { register } from "tsx/esm/api";

register();
await import("./build-worker.ts");

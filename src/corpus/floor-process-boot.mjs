// Lets the process that reads corpora run TypeScript.
import { runTypeScript } from "../typescript.mjs";

await runTypeScript();
await import("./floor-process.ts");

// Lets the process that reads corpora run TypeScript.
import { register } from "tsx/esm/api";

register();
await import("./floor-process.ts");

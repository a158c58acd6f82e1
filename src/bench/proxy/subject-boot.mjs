import { runTypeScript } from "../../typescript.mjs";

await runTypeScript();
await import("./subject.ts");

/**
 * What runs in a browser, made from src/page: TypeScript and uPlot bundled into one script by esbuild (which tsx, and so this
 * program, needs anyhow), and one style sheet. Made once per process, in some tens of milliseconds; nothing is loaded from elsewhere.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { build } from "esbuild";
import { projectPath } from "../home.ts";

export type PageName = "report" | "dashboard";

const scripts = new Map<PageName, Promise<string>>();

/** The page's script, complete. */
export function pageScript(name: PageName): Promise<string> {
  let script = scripts.get(name);
  if (script === undefined) {
    script = bundle(name);
    scripts.set(name, script);
    // a fault (no esbuild for this platform) shall be told again, not remembered
    script.catch(() => scripts.delete(name));
  }
  return script;
}

async function bundle(name: PageName): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [projectPath("src", "page", `${name}.ts`)],
    bundle: true,
    write: false,
    minify: true,
    format: "iife",
    target: "es2022",
    charset: "ascii",
    logLevel: "silent",
    tsconfigRaw: {},
  });
  // the script may stand inside an HTML page
  return outputFiles[0].text.replaceAll("</script", "<\\/script");
}

/** uPlot's own rules and ours. */
export function pageStyle(): string {
  const uplot = createRequire(import.meta.url).resolve("uplot/dist/uPlot.min.css");
  return `${readFileSync(uplot, "utf8")}\n${readFileSync(projectPath("src", "page", "style.css"), "utf8")}`;
}

/** For a Content-Security-Policy: lets this text in, and no other. */
export function sourceHash(text: string): string {
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}

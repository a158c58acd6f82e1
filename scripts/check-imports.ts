/**
 * Checks the layers of src/: nothing imports in a circle, leaves import nothing of ours, and each folder imports only what
 * it may know of.
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Modules that import nothing of ours. */
const LEAVES = ["options.ts", "errors.ts", "log.ts", "metrics.ts", "home.ts"];

/** Who must not import whom: a module whose path starts with `from`, and any of `banned`, each with the reason. */
const RULES: readonly { from: string; banned: readonly string[]; why: string }[] = [
  {
    from: "drafter/",
    banned: ["link/", "proxy/", "engine/", "cli/", "bench/", "main.ts"],
    why: "drafting knows no socket and no HTTP",
  },
  {
    from: "proxy/",
    banned: ["drafter/", "link/", "cli/", "bench/", "main.ts"],
    why: "the proxy works without drafting",
  },
  {
    from: "engine/",
    banned: ["drafter/", "link/", "proxy/", "cli/", "bench/", "main.ts"],
    why: "engines know nothing of who uses them",
  },
  {
    from: "link/",
    banned: ["proxy/", "cli/", "bench/", "main.ts", "engine/process.ts"],
    why: "the link knows only a socket and a drafter",
  },
  {
    from: "dropin/",
    banned: ["proxy/", "cli/", "bench/", "main.ts", "engine/process.ts"],
    why: "beside the engine there is only a drafter",
  },
  { from: "bench/", banned: ["cli/"], why: "commands use the benches, not the other way round" },
  { from: "main.ts", banned: ["cli/", "bench/"], why: "commands use main, not the other way round" },
];

/** Faults found in the modules under `root` (the src folder), one line each. */
export function checkImports(root: string): string[] {
  const modules = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(ts|mjs|js)$/.test(entry.name))
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)).split(path.sep).join("/"))
    .sort();
  const graph = new Map<string, string[]>(modules.map((module) => [module, importsOf(root, module)]));
  const faults: string[] = [];
  for (const [module, imports] of graph) {
    for (const imported of imports) {
      if (imported.startsWith("../")) faults.push(`${module} imports ${imported}, which is outside src`);
      else if (!graph.has(imported)) faults.push(`${module} imports ${imported}, which is not there`);
      if (LEAVES.includes(module))
        faults.push(`${module} imports ${imported}: it is a leaf and imports nothing of ours`);
      for (const { from, banned, why } of RULES) {
        if (module.startsWith(from) && banned.some((prefix) => imported.startsWith(prefix))) {
          faults.push(`${module} imports ${imported}: ${why}`);
        }
      }
    }
  }
  return [...faults, ...findCircles(graph)];
}

/** Own modules that a module imports (also as types, also as the file of a worker), relative to `root`. */
function importsOf(root: string, module: string): string[] {
  const text = readFileSync(path.join(root, module), "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  const found = new Set<string>();
  for (const match of text.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*)"(\.{1,2}\/[^"]+)"/g)) {
    found.add(path.posix.join(path.posix.dirname(module), match[1]));
  }
  return [...found];
}

function findCircles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const circles: string[] = [];
  const done = new Set<string>();
  const trail: string[] = [];
  const visit = (module: string): void => {
    const at = trail.indexOf(module);
    if (at >= 0) {
      circles.push(`imports in a circle: ${[...trail.slice(at), module].join(" → ")}`);
      return;
    }
    if (done.has(module)) return;
    trail.push(module);
    for (const imported of graph.get(module) ?? []) visit(imported);
    trail.pop();
    done.add(module);
  };
  for (const module of graph.keys()) visit(module);
  return circles;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const faults = checkImports(path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), "src"));
  for (const fault of faults) console.error(fault);
  if (faults.length > 0) process.exitCode = 1;
}

import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import { checkImports } from "../../../scripts/check-imports.ts";
import { projectPath } from "../../../src/home.ts";
import { temporaryHome } from "../engine/support/temporary.ts";

const home = temporaryHome();

function sources(name: string, files: Record<string, string>): string {
  const root = path.join(home, name);
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  }
  return root;
}

describe("checkImports", () => {
  it("finds nothing in our own sources", () => {
    expect(checkImports(projectPath("src"))).toEqual([]);
  });

  it("finds a circle, also one of types", () => {
    const root = sources("circle", {
      "a.ts": 'import { b } from "./x/b.ts";',
      "x/b.ts": 'import type { C } from "../c.ts";',
      "c.ts": 'export * from "./a.ts";',
    });
    expect(checkImports(root)).toEqual(["imports in a circle: a.ts → x/b.ts → c.ts → a.ts"]);
  });

  it("finds a leaf that imports, a layer that reaches up, and a module that is not there", () => {
    const root = sources("layers", {
      "errors.ts": 'import { a } from "./log.ts";',
      "log.ts": "",
      "drafter/d.ts": 'import { l } from "../link/l.ts"; // import "./comment.ts" is seen too',
      "link/l.ts": 'import "node:fs"; import { x } from "./gone.ts";',
      "proxy/p.ts": 'const d = await import("../drafter/d.ts");',
      "drafter/comment.ts": "",
    });
    expect(checkImports(root)).toEqual([
      "drafter/d.ts imports link/l.ts: drafting knows no socket and no HTTP",
      "errors.ts imports log.ts: it is a leaf and imports nothing of ours",
      "link/l.ts imports link/gone.ts, which is not there",
      "proxy/p.ts imports drafter/d.ts: the proxy works without drafting",
    ]);
  });
});

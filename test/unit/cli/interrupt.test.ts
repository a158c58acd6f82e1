import { existsSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import { findEngine } from "../../../src/engine/build.ts";
import { temporaryHome } from "../engine/support/temporary.ts";
import { processesWith, start } from "./support.ts";

const home = temporaryHome();

describe("Ctrl-C", () => {
  it.each([
    ["while the source is cloned", "cloning llama.cpp", "SIGINT"],
    ["while the engine is built", "engine build:", "SIGTERM"],
  ] as const)(
    "%s: all is over within two seconds, nothing is left running, nothing half counts as whole",
    async (_when, text, signal) => {
      const command = start(["engine", "build", "--stock"], { CMAKE_BUILD_PARALLEL_LEVEL: "1" });
      await command.printed(text);
      const sent = performance.now();
      command.child.kill(signal);
      const { status, stderr, stdout } = await command.ended;
      expect(performance.now() - sent).toBeLessThan(2000);
      expect([status, stdout]).toEqual([130, ""]);
      expect(stderr.trimEnd().endsWith("aded: interrupted")).toBe(true);
      expect(processesWith(home)).toEqual([]);
      expect(await findEngine({ stock: true })).toBeUndefined();
      const [folder] = readdirSync(path.join(home, "engine"));
      const left = readdirSync(path.join(home, "engine", folder));
      expect(left.filter((name) => name === "lock" || name.startsWith("src.new-"))).toEqual([]);
      expect(left.includes("src")).toBe(text === "engine build:");
    },
    60_000,
  );

  it("while it serves: the port is free again at once", async () => {
    const config = path.join(home, "far.yaml");
    writeFileSync(config, "models: {far: {engine: 'unix:/nowhere/far.sock'}}");
    const command = start(["serve", "--config", config], { ADED_PORT: "0" });
    await command.printed("listening at");
    const sent = performance.now();
    command.child.kill("SIGINT");
    const { status } = await command.ended;
    expect(performance.now() - sent).toBeLessThan(2000);
    expect(status).toBe(130);
    expect(existsSync(path.join(home, "run")) ? readdirSync(path.join(home, "run")) : []).toEqual([]);
  });
});

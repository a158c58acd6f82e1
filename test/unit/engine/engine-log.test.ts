import { existsSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import { EngineLog } from "../../../src/engine/engine-log.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();

describe("EngineLog", () => {
  it("sets the file aside by size and keeps so many", () => {
    const file = path.join(home, "logs", "a.log");
    const log = new EngineLog(file, { maxBytes: 10, keep: 2 });
    for (const text of ["first\n", "second\n", "third\n", "fourth\n"]) log.write(Buffer.from(text));
    log.close();
    const texts = [file, `${file}.1`, `${file}.2`].map((name) => readFileSync(name, "utf8"));
    expect(texts).toEqual(["fourth\n", "third\n", "second\n"]);
    expect(existsSync(`${file}.3`)).toBe(false);
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  it("appends to what is there", () => {
    const file = path.join(home, "b.log");
    for (const text of ["one\n", "two\n"]) {
      const log = new EngineLog(file);
      log.write(Buffer.from(text));
      log.close();
    }
    expect(readFileSync(file, "utf8")).toBe("one\ntwo\n");
  });

  it("gives the last lines, also one without an end, and after closing takes no more", () => {
    const log = new EngineLog(path.join(home, "c.log"), { tailLines: 2 });
    log.write(Buffer.from("a\nb\nc\npar"));
    log.write(Buffer.from("t"));
    expect(log.tail()).toBe("b\nc\npart");
    log.clearTail();
    expect(log.tail()).toBe("");
    log.close();
    log.write(Buffer.from("late"));
    expect(readFileSync(log.file, "utf8")).toBe("a\nb\nc\npart");
  });

  it("goes on without the file when the disk is full", () => {
    // Linux's device that is always full; elsewhere there is none
    const file = existsSync("/dev/full") ? "/dev/full" : path.join(home, "d.log");
    const log = new EngineLog(file);
    log.write(Buffer.from("one\n"));
    log.write(Buffer.from("two\n"));
    expect(log.tail()).toBe("one\ntwo");
    log.close();
  });
});

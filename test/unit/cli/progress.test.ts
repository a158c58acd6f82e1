import { describe, expect, it } from "@jest/globals";
import { createProgress } from "../../../src/cli/progress.ts";

describe("progress without a terminal", () => {
  it("is one plain line every three seconds, and one at the end", () => {
    let text = "";
    let clock = 0;
    const output = {
      write(part: string) {
        text += part;
      },
    };
    const progress = createProgress({ output, now: () => clock });
    progress.line("hello");
    const task = progress.task("build", "steps");
    for (; clock < 7000; clock += 500) task.update(clock / 500, 20, "a.cpp");
    task.end();
    task.end("twice");
    task.update(1, 2);
    const bytes = progress.task("download", "bytes");
    bytes.update(2 ** 20, 0);
    clock += 3000;
    bytes.update(3 * 2 ** 20, 4 * 2 ** 20);
    bytes.end("interrupted");
    expect(text.trimEnd().split("\n")).toEqual([
      "hello",
      "build: 0% (0/20) a.cpp",
      "build: 30% (6/20) a.cpp",
      "build: 60% (12/20) a.cpp",
      "build: done (7.0 s)",
      "download:",
      "download: 75% (3.0/4.0 MiB)",
      "download: interrupted (3.0 s)",
    ]);
  });
});

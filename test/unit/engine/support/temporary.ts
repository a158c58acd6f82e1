/** A folder of its own for each test file, removed afterwards, which is also ADED_HOME while the tests run. */
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll } from "@jest/globals";

/** Call it at the top of a test file. */
export function temporaryHome(): string {
  const folder = realpathSync(mkdtempSync(path.join(tmpdir(), "aded-unit-")));
  const before = process.env.ADED_HOME;
  process.env.ADED_HOME = folder;
  afterAll(() => {
    if (before === undefined) delete process.env.ADED_HOME;
    else process.env.ADED_HOME = before;
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

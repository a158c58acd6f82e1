import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { completionOf, meanPassAtK, passAtK, programOf } from "../../../src/eval/humaneval.ts";
import { Sandbox } from "../../../src/eval/sandbox.ts";
import { FakeServer, timings } from "../bench/support/fake-server.ts";
import { aded } from "../cli/support.ts";

const TASK = {
  task_id: "T/0",
  prompt: 'from math import floor\n\n\ndef half(x):\n    """ Half of x, rounded down.\n    """\n',
  entry_point: "half",
  test: "def check(candidate):\n    assert candidate(5) == 2\n    assert candidate(4) == 2\n",
};

describe("passAtK", () => {
  it("is the chance that one of k samples drawn from n passes", () => {
    // 5 samples, 2 passed: of the 10 ways to draw 2, 3 have no passed one
    expect(passAtK(5, 2, 2)).toBeCloseTo(0.7, 12);
    expect(passAtK(5, 2, 1)).toBeCloseTo(0.4, 12);
    expect([passAtK(5, 0, 3), passAtK(5, 5, 1), passAtK(3, 1, 3)]).toEqual([0, 1, 1]);
    expect(passAtK(200, 10, 100)).toBeCloseTo(0.9992, 4);
  });

  it("is averaged over tasks, and not given for more samples than there are", () => {
    const results = new Map([
      ["a", [true, false]],
      ["b", [false, false]],
    ]);
    expect(meanPassAtK(results, 1)).toBe(0.25);
    expect(meanPassAtK(results, 3)).toBeNull();
  });
});

describe("completionOf", () => {
  it.each([
    ["a whole function in a block", "Sure:\n```python\ndef half(x):\n    return floor(x / 2)\n```\nDone."],
    ["a block without a language", "```\ndef half(x):\n    return x // 2\n```"],
    ["no block", "def half(x):\n    return x // 2"],
    ["a block that never ends", "```python\ndef half(x):\n    return x // 2\n"],
    ["the body alone, indented", "```python\n    return x // 2\n```"],
    ["the body alone, not indented", "```python\ny = x // 2\nreturn y\n```"],
  ])("makes a program of %s", async (_name, answer) => {
    const sandbox = await Sandbox.open({ timeoutS: 20 });
    const { result } = await sandbox.run(programOf(TASK, completionOf(TASK, answer)));
    expect(result).toBe("passed");
  });
});

describe("Sandbox", () => {
  let sandbox: Sandbox;
  beforeAll(async () => {
    sandbox = await Sandbox.open({ timeoutS: 3, memoryBytes: 256 << 20, fileBytes: 1 << 16 });
  });

  it("tells a failed assertion, an error, and an exit from passing", async () => {
    expect((await sandbox.run("assert 1 == 2, 'no'")).result).toBe("failed: no");
    expect((await sandbox.run("import nothing_of_this_name")).result).toContain("No module named");
    expect((await sandbox.run("import sys; sys.exit(0)")).passed).toBe(false);
    expect((await sandbox.run("import os; os._exit(0)")).passed).toBe(false);
    expect((await sandbox.run('print(\'{"result": "passed"}\'); 1/0')).passed).toBe(false);
    expect((await sandbox.run("def f(:")).result).toContain("invalid syntax");
    expect((await sandbox.run("x = 1")).passed).toBe(true);
  });

  it("ends what takes too long, also when it catches everything", async () => {
    expect((await sandbox.run("while True: pass")).result).toBe("timed out");
    const stubborn =
      "import time\nfor i in range(3):\n  try:\n    time.sleep(1)\n  except BaseException: pass\n";
    expect((await sandbox.run(`${stubborn}time.sleep(100)`)).passed).toBe(false);
  });

  it("limits memory, files, and what a program reads", async () => {
    expect((await sandbox.run("x = bytearray(1 << 30)")).passed).toBe(false);
    expect((await sandbox.run("open('f', 'wb').write(b'x' * (1 << 20))")).passed).toBe(false);
    expect((await sandbox.run("input()")).passed).toBe(false);
  });

  it("keeps the network and other users' files out, as far as it says so", async () => {
    const { network, user } = sandbox.isolation;
    if (network) {
      const program = "import socket\nsocket.create_connection(('127.0.0.1', 1), 1)";
      expect((await sandbox.run(program)).result).toMatch(/unreachable|refused/i);
      const names = "import socket\nassert [n for _, n in socket.if_nameindex()] == ['lo']";
      expect((await sandbox.run(names)).result).toBe("passed");
    }
    if (user) {
      expect((await sandbox.run("open('/etc/shadow').read()")).result).toContain("Permission denied");
      expect((await sandbox.run("import os\nassert os.getuid() != 0")).result).toBe("passed");
      expect((await sandbox.run("import subprocess\nsubprocess.run(['true'])")).passed).toBe(false);
    }
    expect(typeof network).toBe("boolean");
  });
});

describe("aded eval humaneval", () => {
  let folder: string;
  let server: FakeServer;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "aded-he-"));
    server = new FakeServer();
    await writeFile(path.join(folder, "tasks.jsonl"), `${JSON.stringify(TASK)}\n`);
  });
  afterEach(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("writes the original's samples, checks them, and tells the speed-up; again, it asks nothing twice", async () => {
    const url = await server.listen();
    server.answer = ({ arm }) => ({
      pieces: ["```python\n", "def half(x):\n", "    return x // 2\n", "```"],
      armHeader: arm,
      timings: timings(5, arm === "on" ? 10 : 20),
    });
    const args = ["eval", "humaneval", "--url", url, "--tasks", path.join(folder, "tasks.jsonl")];
    const out = ["--out", path.join(folder, "out"), "--allow-code-execution", "--timeout", "20"];
    const first = await aded([...args, ...out]);
    expect({ status: first.status, stderr: first.stderr }).toMatchObject({ status: 0 });
    expect(first.stdout).toContain("pass@1 100.00 %");
    expect(first.stdout).toContain("off / on 2.000");
    expect(first.stdout).toContain("same text 1 of 1");
    const samples = await readFile(path.join(folder, "out", "samples.jsonl"), "utf8");
    expect(Object.keys(JSON.parse(samples))).toEqual(["task_id", "completion"]);
    expect(server.seen).toHaveLength(2);
    expect((await aded([...args, ...out])).status).toBe(0);
    expect(server.seen).toHaveLength(2);
    const other = await aded([...args, ...out, "--max-tokens", "9"]);
    expect(other).toMatchObject({ status: 1, stderr: expect.stringContaining("other options") });
  }, 240_000);

  it("runs nothing unless that is allowed", async () => {
    const file = path.join(folder, "samples.jsonl");
    await writeFile(file, `${JSON.stringify({ task_id: "T/0", completion: "    return x // 2\n" })}\n`);
    const args = ["eval", "humaneval", "--tasks", path.join(folder, "tasks.jsonl"), "--check", file];
    const { status, stderr } = await aded(args);
    expect({ status, stderr }).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("--allow-code-execution"),
    });
  }, 120_000);
});

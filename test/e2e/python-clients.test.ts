/** The clients that people use, of PyPI, from OpenAI and Anthropic: through the proxy they get what they get from the engine itself. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { EXACT } from "./support/exact.ts";
import { untilIdle } from "./support/slots.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";
import { type Bridge, masked, openBridge } from "./support/ways.ts";

const PACKAGES = ["openai==3.57.0", "anthropic==2.14.0"];
const PROGRAM = fileURLToPath(new URL("./support/python_clients.py", import.meta.url));
const run = promisify(execFile);

let folder: string;
let stack: Stack;
let bridge: Bridge;
let through: Map<string, unknown>;
let straight: Map<string, unknown>;

/** The values of all cases, by name. */
async function ask(url: string): Promise<Map<string, unknown>> {
  const env = { ...process.env, PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: "1" };
  const { stdout } = await run("python3", [PROGRAM, url], { env });
  await untilIdle(stack.direct);
  return new Map(JSON.parse(stdout) as [string, unknown][]);
}

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-python-"));
  await run("python3", ["-m", "pip", "install", "--quiet", "--target", folder, ...PACKAGES]);
  stack = await startStack(EXACT);
  bridge = await openBridge(stack);
  through = await ask(stack.url);
  straight = await ask(bridge.url);
}, SETUP_MS);

afterAll(async () => {
  bridge?.close();
  await stack?.stop();
  rmSync(folder, { recursive: true, force: true });
});

describe("Python's clients", () => {
  it.each([
    ["openai_models", [{ object: "model" }]],
    [
      "openai_chat",
      { choices: [{ message: { role: "assistant", content: expect.stringMatching(/.{10}/) } }] },
    ],
    [
      "openai_stream",
      { text: expect.stringMatching(/.{10}/), finish: ["length"], usage: { completion_tokens: 24 } },
    ],
    [
      "openai_async_streams_at_once",
      [{ text: expect.stringMatching(/./) }, { text: expect.stringMatching(/./) }],
    ],
    ["openai_tools", { usage: { completion_tokens: expect.any(Number) } }],
    [
      "openai_json_schema",
      { parsed: { city: expect.stringMatching(/^(Paris|Rome)$/), days: expect.any(Number) } },
    ],
    ["openai_responses", { object: "response", output: [{ type: "message" }] }],
    ["openai_error", { type: expect.stringMatching(/Error$/), status: expect.any(Number) }],
    ["openai_abort", 3],
    [
      "anthropic_message",
      { type: "message", content: [{ type: "text", text: expect.stringMatching(/.{10}/) }] },
    ],
    ["anthropic_stream", { text: expect.stringMatching(/.{10}/), message: { stop_reason: "max_tokens" } }],
    ["anthropic_tools", { type: "message", usage: { output_tokens: expect.any(Number) } }],
    ["anthropic_count_tokens", { counted: expect.any(Number) }],
    ["anthropic_abort", 3],
  ])("%s: the same both ways", (name, likeness) => {
    const value = through.get(name);
    if (typeof likeness === "number") expect(value).toBe(likeness);
    else expect(value).toMatchObject(likeness);
    expect(masked(value)).toEqual(masked(straight.get(name)));
  });

  it("had no other cases", () => {
    expect([...straight.keys()]).toEqual([...through.keys()]);
    expect(through.size).toBe(14);
  });
});

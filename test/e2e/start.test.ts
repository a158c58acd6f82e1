/** `aded serve` as users start it: a process of its own with a config file. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { ensureEngine } from "../../src/engine/build.ts";
import { defaultModelName, ensureModel } from "../../src/engine/models.ts";
import type { ProxyStatus } from "../../src/proxy/status.ts";
import { aded, processesWith, type RunningCommand, start } from "../unit/cli/support.ts";
import { Endpoint } from "./support/endpoint.ts";
import type { ChatAnswer } from "./support/generate.ts";
import { SETUP_MS } from "./support/stack.ts";

const CONFIG = `
listen: { port: 0 }
limits: { drain_seconds: 300 }
models:
  smol:
    source: ${defaultModelName}
    args: -c 2048 -np 2 -kvu
    aliases: [default]
`;

let folder: string;
let running: RunningCommand | undefined;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-e2e-"));
  await ensureEngine();
  await ensureModel(defaultModelName);
}, SETUP_MS);
afterEach(async () => {
  running?.child.kill("SIGKILL");
  await running?.ended;
  running = undefined;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function configFile(text: string): string {
  const file = path.join(folder, "aded.yaml");
  writeFileSync(file, text);
  return file;
}

/** A server that is ready, and its engine's process id. */
async function serving(): Promise<{ command: RunningCommand; server: Endpoint; enginePid: number }> {
  running = start(["serve", "--config", configFile(CONFIG)]);
  await running.printed(/^ready: smol at /m);
  const url = /^ready: smol at (\S+)$/m.exec(running.outcome.stdout)?.[1];
  const server = new Endpoint(url ?? "");
  const status = await server.get<ProxyStatus>("/aded/status");
  expect(status.models.smol.link).toBe("connected");
  const { engine_pid: enginePid } = status.models.smol;
  expect(processesWith("llama-server").some((line) => line.startsWith(`${enginePid} `))).toBe(true);
  return { command: running, server, enginePid: enginePid ?? 0 };
}

const question = { model: "default", messages: [{ role: "user", content: "Count to ten." }], temperature: 0 };

function alive(pid: number): boolean {
  return processesWith("llama-server").some((line) => line.startsWith(`${pid} `));
}

describe("aded serve", () => {
  it("answers, and Ctrl-C leaves nothing behind", async () => {
    const { command, server, enginePid } = await serving();
    const answer = await server.send("POST", "/v1/chat/completions", {
      body: JSON.stringify({ ...question, max_tokens: 24 }),
    });
    expect(answer.status).toBe(200);
    expect(answer.headers["x-aded-arm"]).toBe("on");
    const { choices, timings } = JSON.parse(answer.body.toString()) as ChatAnswer;
    expect(choices[0].message.content.length).toBeGreaterThan(10);
    expect(timings.predicted_n).toBe(24);
    command.child.kill("SIGINT");
    const { status, stderr } = await command.ended;
    expect(status).toBe(130);
    expect(stderr).toContain("aded: interrupted");
    expect(alive(enginePid)).toBe(false);
  });

  it("is ready only when it drafts: the first request already says so, and it is true", async () => {
    const { command, server } = await serving();
    const answer = await server.send("POST", "/v1/chat/completions", {
      body: JSON.stringify({ ...question, max_tokens: 24 }),
    });
    expect(answer.headers["x-aded-arm"]).toBe("on");
    // the drafter saw the request from its first step on: 24 tokens, one step fewer for each token that was drafted
    const { timings } = JSON.parse(answer.body.toString()) as { timings: { draft_n_accepted?: number } };
    const steps = 24 - (timings.draft_n_accepted ?? 0);
    for (;;) {
      const { models } = await server.get<ProxyStatus>("/aded/status");
      if (models.smol.steps === steps) break;
      await delay(50);
    }
    command.child.kill("SIGINT");
    await command.ended;
  });

  it("lets a running stream finish after SIGTERM, and takes no other request", async () => {
    const { command, server, enginePid } = await serving();
    const { events } = await server.stream("/v1/chat/completions", {
      ...question,
      max_tokens: 64,
      stream: true,
    });
    const values: string[] = [];
    let refused: Promise<unknown> | undefined;
    for await (const { value } of events) {
      values.push(value);
      if (values.length !== 3) continue;
      command.child.kill("SIGTERM");
      refused = untilRefused(server);
    }
    expect(values.at(-1)).toBe("[DONE]");
    await refused;
    const { status, stderr } = await command.ended;
    expect(status).toBe(0);
    expect(alive(enginePid)).toBe(false);
    const logged = stderr.split("\n").filter((line) => line.startsWith("{"));
    expect(logged.length).toBeGreaterThan(2);
    // no key twice, which would make a line shorter
    for (const line of logged) expect(JSON.stringify(JSON.parse(line))).toBe(line);
  });

  it("does not leave its engine behind when it is killed itself", async () => {
    const { command, enginePid } = await serving();
    command.child.kill("SIGKILL");
    await command.ended;
    while (alive(enginePid)) await delay(50);
  });

  it("says at once that its port is taken", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as { port: number };
    const { status, stdout, stderr } = await aded([
      "serve",
      "--config",
      configFile(CONFIG.replace("port: 0", `port: ${port}`)),
    ]);
    taken.close();
    expect(status).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain(`port ${port} of 127.0.0.1 is in use`);
    expect(stderr).toContain("ADED_PORT=");
  });

  it.each([
    ["a flag that does not exist", ["serve", "--nonsense"], /unknown option '--nonsense'/],
    ["a command that does not exist", ["sreve"], /unknown command 'sreve'/],
    [
      "a config file that is not there",
      ["serve", "--config", "no-such-file.yaml"],
      /can't read the config file .*no-such-file\.yaml/,
    ],
  ])("ends with status 2 for %s", async (_name, args, message) => {
    const { status, stderr } = await aded(args);
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
  });

  it.each([
    ["text that is no YAML", "listen: {port: 8080\nmodels: [", /aded\.yaml:\d+:\d+: /],
    [
      "an unknown option",
      "listen:\n  prot: 8080\n",
      /aded\.yaml:2:3: unknown option "prot"; did you mean "port"\?/,
    ],
    ["a value of the wrong type", "listen:\n  port: eighty\n", /aded\.yaml:2:3: listen\.port: /],
    [
      "an argument that is ADED's own",
      `models:\n  smol:\n    source: ${defaultModelName}\n    args: --port 9\n`,
      /aded\.yaml:4:5: models\.smol\.args: --port is set by ADED/,
    ],
  ])("ends with status 2, line and column for %s", async (_name, text, message) => {
    const { status, stdout, stderr } = await aded(["serve", "--config", configFile(text)]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toMatch(message);
  });
});

/** Asks until a request is refused: with 503, or because nobody listens any more. */
async function untilRefused(server: Endpoint): Promise<void> {
  const body = JSON.stringify({ ...question, max_tokens: 1 });
  for (;;) {
    try {
      const { status } = await server.send("POST", "/v1/chat/completions", { body });
      if (status === 503) return;
    } catch {
      return;
    }
  }
}

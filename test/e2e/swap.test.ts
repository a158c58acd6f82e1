/** Two real models behind one proxy that may not run together: swapping under parallel streams changes no text and loses no request. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { loadConfig } from "../../src/config.ts";
import { silentLog } from "../../src/log.ts";
import { type RunningServer, startServer } from "../../src/main.ts";
import { Endpoint } from "./support/endpoint.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS } from "./support/stack.ts";

const SOURCES = { smol: "SmolLM2-135M-Instruct", gemma: "gemma-3-270m" } as const;
type Name = keyof typeof SOURCES;
const NAMES: Name[] = ["smol", "gemma"];

function config(extra = "", groups = ""): string {
  return `
listen: { port: 0 }
swap: { min_residency_seconds: 0, queue_seconds: 1500 }
${groups}
models:
${NAMES.map(
  (name) => `  ${name}:
    source: ${SOURCES[name]}
    args: -c 2048 -np 2 -kvu -t 1 --seed 1 --draft-timeout-us 1000000
    aliases: [${name}-alias]
${extra}`,
).join("")}`;
}

let folder: string;
let file: string;
let server: RunningServer;
let proxy: Endpoint;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-e2e-"));
  file = path.join(folder, "aded.yaml");
  writeFileSync(file, config());
  server = await startServer(loadConfig(file, {}), { log: silentLog() });
  proxy = new Endpoint(server.url);
  await server.ready;
}, SETUP_MS);
afterAll(async () => {
  await server?.close({ drainMs: 0, graceMs: 2000 });
  rmSync(folder, { recursive: true, force: true });
});

interface ModelList {
  data: { id: string; status: { value: string } }[];
}

async function loaded(): Promise<string[]> {
  const { data } = await proxy.get<ModelList>("/v1/models");
  return data.filter(({ status }) => status.value === "loaded").map(({ id }) => id);
}

const body = (model: string, turn: number) => ({
  model,
  prompt: TURNS[turn],
  n_predict: 24,
  temperature: 0,
  cache_prompt: false,
});

async function streamed(model: string, turn: number, headers: Record<string, string> = {}): Promise<string> {
  const { events, status } = await proxy.stream(
    "/completion",
    { ...body(model, turn), stream: true },
    headers,
  );
  expect(status).toBe(200);
  let text = "";
  let stopped = false;
  for await (const { field, value } of events) {
    if (field !== "data") continue;
    const piece = JSON.parse(value) as { content: string; stop: boolean };
    text += piece.content;
    stopped = piece.stop;
  }
  expect(stopped).toBe(true);
  return text;
}

describe("two models that swap", () => {
  const turns = [0, 1, 2];
  /** What each engine itself says, past the proxy, drafts off. */
  const own = new Map<string, string>();

  it("answer by name, one at a time", async () => {
    expect(await loaded()).toEqual(["smol"]);
    for (const name of NAMES) {
      // loads it
      await proxy.post("/completion", { ...body(`${name}-alias`, 0), n_predict: 1 });
      expect(await loaded()).toEqual([name]);
      const engine = server.engines.find(({ model }) => model === name);
      const direct = new Endpoint(engine?.address.socketPath as string);
      for (const turn of turns) {
        const { content } = await direct.post<{ content: string }>("/completion", body(name, turn), {
          "x-aded": "off",
        });
        own.set(`${name} ${turn}`, content);
      }
    }
    expect(own.get("smol 0")).not.toBe(own.get("gemma 0"));
  }, 600_000);

  it("give each of parallel streams the text of its own engine", async () => {
    const asked = turns.flatMap((turn) => NAMES.map((name) => ({ name, turn })));
    const texts = await Promise.all([...asked, ...asked].map(({ name, turn }) => streamed(name, turn)));
    expect(texts).toEqual([...asked, ...asked].map(({ name, turn }) => own.get(`${name} ${turn}`)));
    expect(await loaded()).toHaveLength(1);
  }, 1_200_000);

  it("tell a streaming client how the wait goes, if it asked for that", async () => {
    const [absent] = NAMES.filter((name) => name !== "smol");
    await proxy.post("/completion", { ...body("smol", 0), n_predict: 1 });
    const answer = await proxy.send("POST", "/completion", {
      body: JSON.stringify({ ...body(absent, 0), stream: true }),
      headers: { "x-aded-progress": "1" },
    });
    const text = answer.body.toString();
    expect(answer.headers["content-type"]).toBe("text/event-stream");
    expect(text).toMatch(/^: aded \{"model":"gemma","state":"stopp(ing|ed)","ahead":0/);
    expect(text).toContain('"state":"starting"');
    const pieces = text.split("\n").filter((line) => line.startsWith("data: "));
    const content = pieces.map((line) => (JSON.parse(line.slice(6)) as { content: string }).content).join("");
    expect(content).toBe(own.get("gemma 0"));
  }, 600_000);

  it("are loaded, unloaded and watched by hand", async () => {
    const models = async () =>
      (await proxy.get<{ models: { id: string; state: string }[] }>("/aded/models")).models;
    await proxy.post("/aded/models/smol/load", {});
    expect((await models()).map(({ state }) => state)).toEqual(["ready", "stopped"]);
    const log = await proxy.send("GET", "/aded/models/smol/logs?lines=500");
    expect(log.body.toString()).toContain("listening on");
    await proxy.post("/aded/models/smol/unload", {});
    expect((await models()).map(({ state }) => state)).toEqual(["stopped", "stopped"]);
    expect((await proxy.send("POST", "/aded/models/none/load", { body: "" })).status).toBe(404);
    expect((await proxy.send("GET", "/health")).status).toBe(200);
  }, 600_000);

  it("stay together in a group once the config says so, without a restart", async () => {
    await proxy.post("/aded/models/gemma/load", {});
    const pid = server.engines[1].snapshot().pid;
    writeFileSync(file, config("", "groups: { pair: { members: [smol, gemma], swap: false } }"));
    expect(await server.reload(loadConfig(file, {}))).toMatchObject({
      added: [],
      removed: [],
      restarted: [],
    });
    expect(await streamed("smol", 1)).toBe(own.get("smol 1"));
    expect(await loaded()).toEqual(["smol", "gemma"]);
    expect(server.engines[1].snapshot().pid).toBe(pid);
    expect(await streamed("gemma", 1)).toBe(own.get("gemma 1"));
  }, 600_000);

  it("restart only where something changed, and finish what runs first", async () => {
    const pids = server.engines.map((engine) => engine.snapshot().pid);
    const running = streamed("gemma", 2);
    const changed = config("", "groups: { pair: { members: [smol, gemma], swap: false } }").replace(
      /(gemma:[\s\S]*?-c) 2048/,
      "$1 1024",
    );
    writeFileSync(file, changed);
    expect(await server.reload(loadConfig(file, {}))).toMatchObject({ restarted: ["gemma"] });
    expect(await running).toBe(own.get("gemma 2"));
    expect(await streamed("gemma", 1)).toBe(own.get("gemma 1"));
    const after = server.engines.map((engine) => engine.snapshot().pid);
    expect(after[0]).toBe(pids[0]);
    expect(after[1]).not.toBe(pids[1]);
  }, 600_000);

  it("stay loaded while a model is wanted whose file can't be had", async () => {
    const more = '  lost: { source: "file:lost.gguf" }\n  far: { source: "hf:nobody/nothing:Q4_0" }\n';
    // loaded and changed, it would be started anew, for which smol has to go
    await proxy.post("/aded/models/gemma/unload", {});
    writeFileSync(file, config() + more);
    await server.reload(loadConfig(file, {}));
    await proxy.post("/completion", body("smol", 0));
    const pid = server.engines[0].snapshot().pid;
    for (const model of ["lost", "far"]) {
      const { status, body: answer } = await proxy.send("POST", "/completion", {
        body: JSON.stringify(body(model, 0)),
      });
      expect([status, answer.toString()]).toEqual([503, expect.stringContaining("model_not_started")]);
    }
    expect(await loaded()).toEqual(["smol"]);
    expect(server.engines[0].snapshot().pid).toBe(pid);
    expect(await streamed("smol", 1)).toBe(own.get("smol 1"));
  }, 600_000);
});

/** `aded-server` as a script would start it in llama-server's place: a process of its own with llama-server's flags. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { freePort } from "../../src/bench/proxy/free-port.ts";
import { ensureEngine } from "../../src/engine/build.ts";
import { defaultModelName, ensureModel } from "../../src/engine/models.ts";
import { homePath, projectPath } from "../../src/home.ts";
import { processesWith } from "../unit/cli/support.ts";
import { Endpoint } from "./support/endpoint.ts";
import { SETUP_MS } from "./support/stack.ts";

const PROGRAM = projectPath("bin", "aded-server");
/** Drafts at every step, however slow the machine is. */
const FLAGS = [
  "-t",
  "1",
  "-c",
  "1024",
  "-np",
  "1",
  "--draft-timeout-us",
  "1000000",
  "--aded-fixed-nodes",
  "6",
];

interface Server {
  child: ChildProcess;
  endpoint: Endpoint;
  port: number;
  output(): string;
  ended: Promise<[status: number | null, signal: NodeJS.Signals | null]>;
}

interface Completion {
  content: string;
  timings: { draft_n?: number; predicted_n: number };
}

let folder: string;
let engine: string;
let model: string;
let running: ChildProcess[] = [];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-e2e-"));
  engine = process.env.ADED_ENGINE ?? (await ensureEngine()).serverPath;
  model = await ensureModel(defaultModelName);
}, SETUP_MS);
afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
  running = [];
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Server> {
  const port = await freePort();
  const all = args.includes("--host") ? args : ["--port", String(port), ...args];
  const child = spawn(PROGRAM, all, {
    env: { ...process.env, ADED_ENGINE: engine, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.push(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  return {
    child,
    port,
    endpoint: new Endpoint(`http://127.0.0.1:${port}`),
    output: () => output,
    ended: once(child, "close") as Server["ended"],
  };
}

/** Waits until `/health` says so. @throws what it printed, when it ends before */
async function untilReady({ child, output }: Server, endpoint: Endpoint): Promise<void> {
  for (;;) {
    if (child.exitCode !== null) throw new Error(output());
    const status = await endpoint.send("GET", "/health").then(
      (answer) => answer.status,
      () => 0,
    );
    if (status === 200) return;
    await delay(50);
  }
}

/**
 * Lines without their times, sorted: the engine's log has a thread of its own, which comes before or after other output, and whose
 * last lines are lost when the engine gives up early.
 */
function linesOf(output: Buffer): string[] {
  const lines = output.toString().split("\n");
  return lines
    .map((line) => line.replace(/^\d+\.\d+\.\d+\.\d+ (?:[DIWE] )?/, ""))
    .filter((line) => !line.includes("initializing ..."))
    .sort();
}

const prompt = { prompt: "One, two, three, four,", n_predict: 24, temperature: 0 };

/** Asks until an answer was drafted: the drafter may connect a moment after the engine is ready. */
async function untilDrafted(endpoint: Endpoint, extra: object = {}): Promise<Completion> {
  for (;;) {
    const answer = await endpoint.post<Completion>("/completion", { ...prompt, ...extra });
    if ((answer.timings.draft_n ?? 0) > 0) return answer;
    await delay(50);
  }
}

/** Processes and folders that belong to this engine. */
function leftovers(pid: number): string[] {
  const folders = readdirSync(homePath("run")).filter((name) => name.startsWith(`${pid}-`));
  return [...processesWith(`run/${pid}-`), ...folders];
}

async function untilNothingIsLeft(pid: number): Promise<void> {
  while (leftovers(pid).length > 0) await delay(50);
}

describe("in llama-server's place", () => {
  it.each(["SIGINT", "SIGTERM"] as const)(
    "it is llama-server, drafts, gives the plain text, and %s ends it as llama-server",
    async (signal) => {
      const server = await start(["-m", model, ...FLAGS]);
      await untilReady(server, server.endpoint);
      const pid = server.child.pid as number;
      expect(processesWith("llama-server").some((line) => line.startsWith(`${pid} `))).toBe(true);
      const drafted = await untilDrafted(server.endpoint);
      const plain = await server.endpoint.post<Completion>("/completion", prompt, { "x-aded": "off" });
      expect(plain.timings.draft_n).toBeUndefined();
      expect(drafted.content).toBe(plain.content);
      const [own] = readdirSync(homePath("run")).filter((name) => name.startsWith(`${pid}-`));
      expect((statSync(homePath("run", own)).mode & 0o777).toString(8)).toBe("700");
      for (const name of readdirSync(homePath("run", own))) {
        expect((statSync(homePath("run", own, name)).mode & 0o777).toString(8)).toBe("600");
      }
      server.child.kill(signal);
      expect(await server.ended).toEqual([0, null]);
      await untilNothingIsLeft(pid);
    },
  );

  it("ends when it is told to, though answers are under way, and tells whoever waits", async () => {
    const server = await start(["-m", model, ...FLAGS]);
    await untilReady(server, server.endpoint);
    const body = { prompt: "Once upon a time", n_predict: 4000, ignore_eos: true };
    const { events } = await server.endpoint.stream("/completion", { ...body, stream: true });
    let answer: ReturnType<Endpoint["send"]> | undefined;
    let last = "{}";
    let count = 0;
    let broken = false;
    try {
      for await (const { value } of events) {
        last = value;
        if (++count !== 3) continue;
        // beside the stream, or waiting for its slot
        answer = server.endpoint.send("POST", "/completion", { body: JSON.stringify(body) });
        setTimeout(() => server.child.kill("SIGTERM"), 1000);
      }
    } catch {
      broken = true; // the connection was closed before the last event was written
    }
    if (!broken) expect(JSON.parse(last)).toMatchObject({ error: { code: 503 } });
    expect((await answer)?.status).toBe(503);
    expect(await server.ended).toEqual([0, null]);
  });

  it("prints what llama-server prints and ends with its status when it is used wrongly", () => {
    for (const args of [["--no-such-flag"], ["-m"], ["-m", path.join(folder, "none.gguf"), "--port", "0"]]) {
      const stock = spawnSync(engine, args);
      const own = spawnSync(PROGRAM, args, { env: { ...process.env, ADED_ENGINE: engine } });
      expect(own.status).toBe(stock.status);
      expect(own.status).not.toBe(0);
      expect(linesOf(own.stdout)).toEqual(linesOf(stock.stdout));
      expect(linesOf(own.stderr)).toEqual(linesOf(stock.stderr));
    }
  });

  it("answers --help and --version as llama-server, with a part of its own", () => {
    for (const [flag, part] of [
      ["--help", "--aded-max-nodes"],
      ["--version", "aded-server "],
    ]) {
      const stock = spawnSync(engine, [flag]);
      const own = spawnSync(PROGRAM, [flag], { env: { ...process.env, ADED_ENGINE: engine } });
      expect(own.status).toBe(0);
      for (const stream of ["stdout", "stderr"] as const) {
        expect(linesOf(own[stream])).toEqual(expect.arrayContaining(linesOf(stock[stream])));
      }
      expect(own.stdout.toString() + own.stderr.toString()).toContain(part);
    }
  });

  it("listens on a Unix socket, lets in by key files, over TLS", async () => {
    const socket = path.join(folder, "x.sock");
    const keys = path.join(folder, "keys");
    writeFileSync(keys, "sesame\n", { mode: 0o600 });
    const unix = await start(["-m", model, ...FLAGS, "--host", socket, "--api-key-file", keys, "--metrics"]);
    const endpoint = new Endpoint(socket);
    await untilReady(unix, endpoint);
    expect((await endpoint.send("POST", "/completion", { body: "{}" })).status).toBe(401);
    const headers = { authorization: "Bearer sesame" };
    const answer = await endpoint.post<Completion>("/completion", prompt, headers);
    expect(answer.timings.predicted_n).toBe(24);
    expect((await endpoint.send("GET", "/metrics", { headers })).body.toString()).toContain("llamacpp:");
    unix.child.kill("SIGTERM");
    await unix.ended;

    const [key, cert] = ["key.pem", "cert.pem"].map((name) => path.join(folder, name));
    const made = spawnSync(
      "openssl",
      [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
      ].concat(["-keyout", key, "-out", cert]),
    );
    expect(made.status).toBe(0);
    const tls = await start(["-m", model, ...FLAGS, "--ssl-key-file", key, "--ssl-cert-file", cert]);
    for (;;) {
      const status = await new Promise<number>((resolve) => {
        httpsRequest(
          { host: "127.0.0.1", port: tls.port, path: "/health", rejectUnauthorized: false },
          (answer) => {
            answer.resume();
            resolve(answer.statusCode ?? 0);
          },
        )
          .on("error", () => resolve(0))
          .end();
      });
      if (status === 200) break;
      if (tls.child.exitCode !== null) throw new Error(tls.output());
      await delay(50);
    }
  });

  it("an embedding server has no drafter beside it", async () => {
    const server = await start(["-m", model, "-t", "1", "-c", "512", "--embeddings", "--pooling", "mean"]);
    await untilReady(server, server.endpoint);
    expect(leftovers(server.child.pid as number)).toEqual([]);
    expect((await server.endpoint.send("POST", "/embedding", { body: '{"content":"a"}' })).status).toBe(200);
  });

  it("a router's servers each have a drafter, and leave none behind", async () => {
    const models = path.join(folder, "models");
    mkdirSync(models);
    for (const name of ["one", "two"]) symlinkSync(model, path.join(models, `${name}.gguf`));
    const router = await start([...FLAGS, "--models-dir", models]);
    await untilReady(router, router.endpoint);
    const one = await untilDrafted(router.endpoint, { model: "one" });
    const two = await untilDrafted(router.endpoint, { model: "two" });
    expect(two.content).toBe(one.content);
    router.child.kill("SIGTERM");
    await router.ended;
    await untilNothingIsLeft(router.child.pid as number);
  });
});

describe("when one of the two dies", () => {
  it("the engine killed: its drafter goes, and takes the folder along", async () => {
    const server = await start(["-m", model, ...FLAGS]);
    await untilReady(server, server.endpoint);
    await untilDrafted(server.endpoint);
    server.child.kill("SIGKILL");
    expect(await server.ended).toEqual([null, "SIGKILL"]);
    await untilNothingIsLeft(server.child.pid as number);
  });

  it("the drafter killed in the middle of a stream: the text goes on, and drafting comes back", async () => {
    const server = await start(["-m", model, ...FLAGS]);
    await untilReady(server, server.endpoint);
    await untilDrafted(server.endpoint);
    const pid = server.child.pid as number;
    const plain = await server.endpoint.post<Completion>(
      "/completion",
      { ...prompt, n_predict: 96 },
      { "x-aded": "off" },
    );
    const { events } = await server.endpoint.stream("/completion", {
      ...prompt,
      n_predict: 96,
      stream: true,
    });
    let text = "";
    for await (const { value } of events) {
      if (text === "") {
        const drafter = processesWith(`run/${pid}-`).find((line) => line.includes("aded-drafter.js"));
        process.kill(Number.parseInt(drafter ?? "", 10), "SIGKILL");
      }
      text += (JSON.parse(value) as { content: string }).content;
    }
    expect(text).toBe(plain.content);
    await untilDrafted(server.endpoint);
  });
});

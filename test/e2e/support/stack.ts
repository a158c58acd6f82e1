/**
 * The whole path, all of it real: patched llama-server with SmolLM2, drafter in its worker thread, proxy. Put together from
 * the parts that src/main.ts wires, so that a test can reach each of them.
 */
import { once } from "node:events";
import { readFileSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { DrafterOptions } from "../../../src/drafter/options.ts";
import { ensureEngine } from "../../../src/engine/build.ts";
import type { DraftingSnapshot } from "../../../src/engine/engine.ts";
import { defaultModelName, ensureModel, ensureQuantized } from "../../../src/engine/models.ts";
import { EngineProcess } from "../../../src/engine/process.ts";
import { DraftingHost } from "../../../src/link/host.ts";
import { silentLog } from "../../../src/log.ts";
import { type AdedProxy, createProxy } from "../../../src/proxy/app.ts";
import { Endpoint } from "./endpoint.ts";

/** Long enough to build the engine and fetch the model, ms. */
export const SETUP_MS = 30 * 60_000;

export interface StackOptions {
  /** Arguments of llama-server after the usual ones. */
  args?: readonly string[];
  /** A known model. @default SmolLM2-135M-Instruct */
  model?: string;
  /** True: its weights as F32 instead of their own type. */
  f32?: boolean;
  /** False: no drafter is connected; the test connects one of its own. @default true */
  drafting?: boolean;
  /** @default drafts 7 nodes at every step, whether they pay on this machine or not */
  drafter?: DrafterOptions;
  /** URL of another drafter. @default the real one */
  drafterModule?: string;
  /** Corpus files that the drafter starts from. @default none */
  corpora?: readonly string[];
}

export interface Stack {
  /** Name of the model. */
  model: string;
  /** The proxy. */
  proxy: Endpoint;
  url: string;
  /** The engine, past the proxy. */
  direct: Endpoint;
  engine: EngineProcess;
  /** What is drafting; undefined if `drafting` was false. */
  drafting?: DraftingHost;
  /** Path of the draft link's socket. */
  draftSocket: string;
  /** A folder that goes when the stack stops. */
  folder: string;
  /** All that the engine has printed. */
  engineLog(): string;
  stop(): Promise<void>;
}

/** One thread, because two that wait for each other crawl on a busy machine; for the same reason drafts have a lot of time. */
const ARGS = ["-c", "4096", "-np", "4", "-kvu", "--draft-timeout-us", "1000000", "--seed", "1", "-t", "1"];

export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const { args = [], drafting = true, drafter = { fixedNodes: 7 }, drafterModule, corpora = [] } = options;
  const { serverPath, quantizePath } = await ensureEngine();
  const original = await ensureModel(options.model ?? defaultModelName);
  const modelPath = options.f32 ? await ensureQuantized(original, "F32", { quantizePath }) : original;
  const folder = await mkdtemp(path.join(tmpdir(), "aded-e2e-"));
  const logFile = path.join(folder, "engine.log");
  const model = "test";
  const engine = new EngineProcess({
    model,
    serverPath,
    modelPath,
    args: [...ARGS, "--slot-save-path", folder, ...args],
    log: silentLog(),
    logFile,
  });
  let host: DraftingHost | undefined;
  let server: AdedProxy | undefined;
  const stop = async (): Promise<void> => {
    await server?.close(0);
    await Promise.all([host?.stop(), engine.stop(2000)]);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await engine.start();
    const draftSocket = engine.draftSocket;
    if (draftSocket === undefined) throw new Error(`${serverPath} has no draft link`);
    if (drafting) {
      // what the plain arm teaches makes short answers draft well: more to verify, which is what is tested here
      const taught = { learnFromPlain: true, ...drafter };
      host = new DraftingHost({
        socketPath: draftSocket,
        drafter: taught,
        drafterModule,
        corpora: { corpora: corpora.map((file) => ({ file, weight: 1 })) },
        log: silentLog(),
      });
      host.start();
      await untilLinked(host);
    }
    server = createProxy({
      models: [{ engine, aliases: [] }],
      version: "e2e",
      log: silentLog(),
      draftingStatus: () => host?.snapshot(),
    });
    const { url } = await server.listen({ port: 0 });
    return {
      model,
      proxy: new Endpoint(url),
      url,
      direct: new Endpoint(engine.address.socketPath as string),
      engine,
      drafting: host,
      draftSocket,
      folder,
      engineLog: () => readFileSync(logFile, "utf8"),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Resolves once the drafter is connected to the engine. */
export async function untilLinked(host: DraftingHost): Promise<void> {
  while (host.snapshot().link !== "connected") {
    await (once(host, "status") as Promise<[DraftingSnapshot]>);
  }
}

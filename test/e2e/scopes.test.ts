/** What one API key's requests teach the drafter: kept from other keys' unless sharing is switched on, and kept over a restart. */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { loadConfig } from "../../src/config.ts";
import { homePath } from "../../src/home.ts";
import { silentLog } from "../../src/log.ts";
import { type RunningServer, startServer } from "../../src/main.ts";
import { Endpoint } from "./support/endpoint.ts";
import type { Completion } from "./support/generate.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS } from "./support/stack.ts";

const TOKENS = 48;
const MODEL = "scopes-e2e";

let folder: string;
let server: RunningServer | undefined;

function snapshots(): string[] {
  const folder = homePath("learnt");
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith(`${MODEL}-`)) : [];
}

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-e2e-"));
});
afterEach(async () => {
  await stop();
  rmSync(folder, { recursive: true, force: true });
  for (const name of snapshots()) rmSync(homePath("learnt", name));
});

async function start(drafts: string): Promise<Endpoint> {
  const file = path.join(folder, "aded.yaml");
  writeFileSync(
    file,
    `
listen: { port: 0 }
api_keys: [key-a, key-b, key-c]
models:
  ${MODEL}:
    source: SmolLM2-135M-Instruct
    args: -c 1024 -np 1 -t 1 --draft-timeout-us 1000000
    drafts: { fixed_nodes: 7, ${drafts} }
`,
  );
  server = await startServer(loadConfig(file, {}), { log: silentLog() });
  await server.ready;
  return new Endpoint(server.url);
}

async function stop(): Promise<void> {
  await server?.close({ drainMs: 0, graceMs: 2000 });
  server = undefined;
}

/** Drafted tokens that the answer to one prompt accepted. */
async function accepted(proxy: Endpoint, key: string): Promise<number> {
  const body = { prompt: TURNS[0], n_predict: TOKENS, temperature: 0, cache_prompt: false, ignore_eos: true };
  const { timings } = await proxy.post<Completion>("/completion", body, { authorization: `Bearer ${key}` });
  return timings.draft_n_accepted ?? 0;
}

describe("API keys", () => {
  it(
    "what key A taught gives key B not one accepted token more, and survives a restart",
    async () => {
      const proxy = await start("snapshot_seconds: 300");
      const cold = await accepted(proxy, "key-a");
      await accepted(proxy, "key-a");
      const warm = await accepted(proxy, "key-a");
      // most of an answer that is known is accepted
      expect(warm).toBeGreaterThan(cold + TOKENS / 5);
      expect(await accepted(proxy, "key-b")).toBe(cold);
      await stop();
      expect(snapshots()).toHaveLength(1);
      const again = await start("snapshot_seconds: 300");
      expect(await accepted(again, "key-a")).toBeGreaterThanOrEqual(warm);
      expect(await accepted(again, "key-c")).toBe(cold);
    },
    SETUP_MS,
  );

  it(
    "with sharing on key B drafts from what key A taught",
    async () => {
      const proxy = await start("snapshot_seconds: 0, share_scopes: true");
      const cold = await accepted(proxy, "key-a");
      await accepted(proxy, "key-a");
      expect(await accepted(proxy, "key-b")).toBeGreaterThan(cold + TOKENS / 5);
    },
    SETUP_MS,
  );
});

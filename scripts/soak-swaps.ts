/**
 * `npm run test:soak-swaps [-- --minutes 20 --seed 1 --clients 4]`: two models that may not run together, real engines, under random load
 * that changes its mind: swaps by request, by hand and by a changed config, engines that are killed or stand still, clients that leave.
 * Every complete text is compared with the engine's own (drafts off); a stream that breaks off must not look complete; memory must not grow,
 * and no process, socket or descriptor may be left. The last line is "N passed, N failed"; status 1 where something failed.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { loadConfig } from "../src/config.ts";
import { Random } from "../src/drafter/random.ts";
import { silentLog } from "../src/log.ts";
import { startServer } from "../src/main.ts";
import { Endpoint } from "../test/e2e/support/endpoint.ts";
import { MemoryWatch, numberFlag, report, SoakLoad } from "./soak-load.ts";

const SOURCES = { smol: "SmolLM2-135M-Instruct", gemma: "gemma-3-270m" };
const MODELS = Object.keys(SOURCES);
/** How long the load prefers one model, ms, and for which share of its requests. */
const MOOD_MS = 6000;
const MOOD_SHARE = 0.9;

const minutes = numberFlag("minutes", 20);
const random = new Random(numberFlag("seed", 1));
const clients = numberFlag("clients", 4);

function config(context: number): string {
  const models = Object.entries(SOURCES).map(
    ([name, source]) => `  ${name}:
    source: ${source}
    args: -c ${name === "gemma" ? context : 2048} -np 2 -kvu
    drafts: { snapshot_seconds: 0 }
`,
  );
  return `listen: { port: 0 }\nswap: { min_residency_seconds: 1, queue_seconds: 120 }\nmodels:\n${models.join("")}`;
}

/** Process ids of this process' engines that run, from /proc. */
function engines(): string[] {
  const running: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const [, name, rest] = /\((.*)\) (.*)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
      if (name === "llama-server" && rest.split(" ")[1] === String(process.pid)) running.push(pid);
    } catch {
      // it has just ended
    }
  }
  return running;
}

/** Open descriptors of this process; undefined where the system does not tell. */
function descriptors(): number | undefined {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
}

const folder = mkdtempSync(path.join(tmpdir(), "aded-soak-"));
const file = path.join(folder, "aded.yaml");
writeFileSync(file, config(2048));
const openBefore = descriptors();
const server = await startServer(loadConfig(file, {}), { log: silentLog() });
const proxy = new Endpoint(server.url);
const load = new SoakLoad(proxy, random);
const count = { kills: 0, stops: 0, unloads: 0, reloads: 0, swaps: 0 };
let mood = 0;
let lastKill = 0;

function pidOf(model: string): number | undefined {
  const { pid, state } = server.engines.find((engine) => engine.model === model)?.snapshot() ?? {};
  return state === "ready" ? pid : undefined;
}

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function trouble(until: number): Promise<void> {
  while (Date.now() < until) {
    await delay(4000 + random.next() * 8000);
    if (Date.now() >= until) return;
    const model = MODELS[random.below(MODELS.length)];
    const kind = random.next();
    const running = MODELS.find((name) => pidOf(name) !== undefined);
    const pid = running === undefined ? undefined : pidOf(running);
    if (kind < 0.25) {
      // a second death within a minute after the first is what the restart policy gives up on, some time
      if (pid === undefined || Date.now() - lastKill < 30_000) continue;
      lastKill = Date.now();
      count.kills++;
      process.kill(pid, "SIGKILL");
    } else if (kind < 0.5) {
      if (pid === undefined) continue;
      count.stops++;
      process.kill(pid, "SIGSTOP");
      await delay(500 + random.next() * 1500);
      if (alive(pid)) process.kill(pid, "SIGCONT");
    } else if (kind < 0.8) {
      count.unloads++;
      const { status } = await proxy.send("POST", `/aded/models/${model}/unload`);
      if (status !== 200) load.faults.push(`unload answers ${status}`);
    } else {
      count.reloads++;
      writeFileSync(file, config(random.next() < 0.5 ? 2048 : 1024));
      await server.reload(loadConfig(file, {}));
    }
  }
}

let status = 1;
try {
  await server.ready;
  for (const model of MODELS) {
    await proxy.post(`/aded/models/${model}/load`, {});
    const engine = server.engines.find((one) => one.model === model);
    await load.learn(model, new Endpoint(engine?.address.socketPath as string));
  }
  const began = Date.now();
  const until = began + minutes * 60_000;
  const memory = new MemoryWatch(began + minutes * 6000);
  const change = setInterval(() => {
    mood = random.below(MODELS.length);
  }, MOOD_MS);
  const client = async (): Promise<void> => {
    while (Date.now() < until && !load.failed) {
      await load.one(MODELS[random.next() < MOOD_SHARE ? mood : random.below(MODELS.length)]);
      memory.look();
    }
  };
  await Promise.all([trouble(until), ...Array.from({ length: clients }, client)]);
  clearInterval(change);
  for (const model of MODELS) await load.last(model);
  const grown = memory.grown();
  const models = (await proxy.get<{ models: Record<string, { starts?: number }> }>("/aded/status")).models;
  count.swaps = Object.values(models).reduce((sum, { starts = 0 }) => sum + starts, 0);
  await server.close({ drainMs: 5000, graceMs: 5000 });
  await delay(1000);
  const open = descriptors();
  // Node itself opens some, once
  if (open !== undefined && openBefore !== undefined && open > openBefore + 8)
    load.faults.push(`${open} descriptors are open, ${openBefore} were before`);
  if (existsSync("/proc") && engines().length > 0) load.faults.push(`engines still run: ${engines()}`);
  status = report(load, grown, { minutes, ...count });
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(status);

/**
 * What the proxy adds to a request: the same small requests straight to an instant origin, through this program's proxy and, where it
 * is installed, through nginx; in rounds, one way after the other, so that what else the machine does meets all alike.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { AdedError } from "../errors.ts";
import { freePort } from "./proxy/free-port.ts";
import { type Load, manyStreams, type Streams, smallRequests } from "./proxy/load.ts";
import { median, quantiles } from "./statistics.ts";

export interface ProxyBenchOptions {
  /** @default 5 */
  rounds?: number;
  /** Measured time of each kind of load in each round, s. @default 2 */
  seconds?: number;
  /** Connections for the throughput. @default 32 */
  connections?: number;
  /** Event streams at once. @default 256 */
  streams?: number;
  /** Path of nginx; undefined: without it. */
  nginx?: string;
  /** Where the proxy's CPU profile goes. */
  profile?: string;
  signal?: AbortSignal;
}

export interface Milliseconds {
  p50: number;
  p99: number;
}

export interface WayResult {
  /** Time of a request over one connection. */
  ms: Milliseconds;
  /** Over all connections together; median of the rounds, with the least and the most. */
  requests_per_s: number;
  requests_per_s_range: [number, number];
  streams: { complete: number; longest_gap_ms: number };
  /** CPU time of the process for each event that it passed on, µs; left out where it isn't known. */
  cpu_us_per_event?: EventCost;
}

export interface EventCost {
  /** One stream, an event every 4 ms: each event comes alone. */
  one: number;
  /** All streams at once, an event of each every 25 ms. */
  many: number;
}

export interface ProxyReport {
  /** Median over the rounds of the difference to the direct way in the same round. */
  added_ms: Milliseconds;
  requests_per_s: number;
  /** Requests for each second of CPU time that the proxy's process took: what one core can do. */
  requests_per_cpu_s: number;
  direct: WayResult;
  proxy: WayResult;
  nginx?: WayResult & { added_ms: Milliseconds };
  rounds: number;
  connections: number;
  streams: number;
}

interface Way {
  name: "direct" | "proxy" | "nginx";
  port: number;
  latencies: Milliseconds[];
  rates: number[];
  streams?: Streams;
  /** CPU time that its process has taken, s; undefined where it isn't known. */
  cpu?: () => Promise<number | undefined>;
  eventCost?: EventCost;
}

const STREAM_EVENTS = 40;
const STREAM_GAP_MS = 25;
/** One stream alone, for its cost in CPU time. */
const ALONE = { count: 1, events: 1000, gapMs: 4 };

/** @throws AdedError ADED_BENCH when a request fails; the signal's reason when aborted */
export async function runProxyBench(options: ProxyBenchOptions = {}): Promise<ProxyReport> {
  const { rounds = 5, seconds = 2, connections = 32, streams = 256, signal } = options;
  const folder = mkdtempSync(path.join(tmpdir(), "aded-bench-proxy-"));
  const children: ChildProcess[] = [];
  try {
    const origin = startModule("proxy/origin.mjs", [], children);
    const originPort = await portOf(origin);
    const profile = options.profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${options.profile}`];
    const subject = startModule("proxy/subject-boot.mjs", [String(originPort)], children, profile);
    const ways: Way[] = [
      { name: "direct", port: originPort, latencies: [], rates: [] },
      { name: "proxy", port: await portOf(subject), latencies: [], rates: [], cpu: () => cpuOf(subject) },
    ];
    if (options.nginx !== undefined) {
      const { port, child } = await startNginx(options.nginx, originPort, { folder, children });
      ways.push({ name: "nginx", port, latencies: [], rates: [], cpu: async () => cpuOfThread(child) });
    }
    for (const { port } of ways) await smallRequests(port, { connections, seconds: Math.min(1, seconds) });
    let cpuSeconds = 0;
    let requests = 0;
    for (let round = 0; round < rounds; round++) {
      // the order turns, so that none is always first
      for (const way of [...ways.slice(round % ways.length), ...ways.slice(0, round % ways.length)]) {
        signal?.throwIfAborted();
        way.latencies.push(timesOf(await smallRequests(way.port, { connections: 1, seconds })));
        const before = way.name === "proxy" ? await cpuOf(subject) : 0;
        const load = await smallRequests(way.port, { connections, seconds });
        way.rates.push(load.latencies.length / load.seconds);
        if (way.name !== "proxy") continue;
        cpuSeconds += (await cpuOf(subject)) - before;
        requests += load.latencies.length;
      }
    }
    for (const way of ways) {
      signal?.throwIfAborted();
      const one = await costOf(way, () => manyStreams(way.port, ALONE), ALONE.events);
      const many = await costOf(
        way,
        async () => {
          way.streams = await manyStreams(way.port, {
            count: streams,
            events: STREAM_EVENTS,
            gapMs: STREAM_GAP_MS,
          });
        },
        streams * STREAM_EVENTS,
      );
      if (one !== undefined && many !== undefined) way.eventCost = { one, many };
    }
    return report(ways, { rounds, connections, streams, perCpuSecond: requests / cpuSeconds });
  } catch (error) {
    if (signal?.aborted || error instanceof AdedError) throw error;
    throw new AdedError("ADED_BENCH", `the proxy bench broke off: ${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    await Promise.all(children.map(end));
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(
  ways: readonly Way[],
  {
    rounds,
    connections,
    streams,
    perCpuSecond,
  }: { rounds: number; connections: number; streams: number; perCpuSecond: number },
): ProxyReport {
  const [direct, proxy, nginx] = ways;
  const added = (way: Way): Milliseconds => ({
    p50: middle(way.latencies.map(({ p50 }, i) => p50 - direct.latencies[i].p50)),
    p99: middle(way.latencies.map(({ p99 }, i) => p99 - direct.latencies[i].p99)),
  });
  return {
    added_ms: added(proxy),
    requests_per_s: resultOf(proxy).requests_per_s,
    requests_per_cpu_s: Math.round(perCpuSecond),
    direct: resultOf(direct),
    proxy: resultOf(proxy),
    nginx: nginx === undefined ? undefined : { ...resultOf(nginx), added_ms: added(nginx) },
    rounds,
    connections,
    streams,
  };
}

function resultOf(way: Way): WayResult {
  return {
    ms: {
      p50: middle(way.latencies.map(({ p50 }) => p50)),
      p99: middle(way.latencies.map(({ p99 }) => p99)),
    },
    requests_per_s: Math.round(middle(way.rates)),
    requests_per_s_range: [Math.round(Math.min(...way.rates)), Math.round(Math.max(...way.rates))],
    streams: {
      complete: way.streams?.complete ?? 0,
      longest_gap_ms: Math.round(way.streams?.longestGapMs ?? 0),
    },
    cpu_us_per_event: way.eventCost,
  };
}

function timesOf({ latencies }: Load): Milliseconds {
  const found = quantiles(latencies);
  if (found === null) throw new AdedError("ADED_BENCH", "not one request came to its end");
  return { p50: found.p50, p99: found.p99 };
}

function middle(values: readonly number[]): number {
  return Math.round((median(values) ?? Number.NaN) * 1000) / 1000;
}

function startModule(
  file: string,
  args: readonly string[],
  children: ChildProcess[],
  flags: readonly string[] = [],
): ChildProcess {
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), args, {
    execArgv: [...flags],
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  children.push(child);
  return child;
}

async function answerOf<T>(child: ChildProcess): Promise<T> {
  const answered = new AbortController();
  const { signal } = answered;
  try {
    const ended = once(child, "exit", { signal }).then(() => {
      throw new AdedError("ADED_BENCH", "a process of the bench ended early");
    });
    const [message] = (await Promise.race([once(child, "message", { signal }), ended])) as [T];
    ended.catch(() => {});
    return message;
  } finally {
    answered.abort();
  }
}

async function portOf(child: ChildProcess): Promise<number> {
  return (await answerOf<{ port: number }>(child)).port;
}

async function cpuOf(child: ChildProcess): Promise<number> {
  child.send("cpu");
  return (await answerOf<{ cpuSeconds: number }>(child)).cpuSeconds;
}

/** CPU time of a process of one thread, s; undefined where the kernel doesn't tell. */
function cpuOfThread({ pid }: ChildProcess): number | undefined {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, "utf8").split(" ")[0]) / 1e9;
  } catch {
    return undefined;
  }
}

/** µs of the way's CPU time for each of `events` that pass while `work` runs. */
async function costOf(way: Way, work: () => Promise<unknown>, events: number): Promise<number | undefined> {
  const before = await way.cpu?.();
  await work();
  const after = await way.cpu?.();
  if (before === undefined || after === undefined) return undefined;
  return Math.round(((after - before) * 1e7) / events) / 10;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  // the modules end with their channel, and only then write a profile
  if (child.connected) child.disconnect();
  else child.kill("SIGTERM");
  const overdue = setTimeout(() => child.kill("SIGKILL"), 5000);
  await gone;
  clearTimeout(overdue);
}

/** One worker, kept-alive connections to the origin, nothing written: what nginx does in the proxy's place. */
async function startNginx(
  program: string,
  originPort: number,
  { folder, children }: { folder: string; children: ChildProcess[] },
): Promise<{ port: number; child: ChildProcess }> {
  const port = await freePort();
  const file = path.join(folder, "nginx.conf");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${folder}/${name};`,
  );
  writeFileSync(
    file,
    `daemon off; master_process off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr crit;
events { worker_connections 2048; }
http {
  access_log off; ${temporary.join(" ")}
  keepalive_requests 100000000;
  upstream origin { server 127.0.0.1:${originPort}; keepalive 512; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
  }
}
`,
  );
  const child = spawn(program, ["-c", file, "-p", folder, "-e", "stderr"], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  children.push(child);
  let failed: Error | undefined;
  child.on("error", (error) => {
    failed = error;
  });
  for (let tries = 0; tries < 200; tries++) {
    if (failed !== undefined || child.exitCode !== null) break;
    const up = await smallRequests(port, { connections: 1, seconds: 1, requests: 1 }).catch(() => undefined);
    if (up !== undefined) return { port, child };
    await delay(50);
  }
  throw new AdedError("ADED_BENCH", `${program} did not start${failed ? `: ${failed.message}` : ""}`);
}

/** llama-server's command line and environment, and how many threads it gets. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

export interface EngineArguments {
  modelPath: string;
  /** Unix socket for HTTP. llama-server takes a host that ends in .sock for one. */
  httpSocket: string;
  /** Unix socket for the draft link; undefined: none. */
  draftSocket?: string;
  /** Where the engine keeps what it measures at its start; undefined: nowhere. */
  measuresFile?: string;
  /** The user's arguments; they come last. */
  args: readonly string[];
}

/** The command line, without the program. */
export function engineArguments(options: EngineArguments): string[] {
  const { modelPath, httpSocket, draftSocket, measuresFile, args } = options;
  const threads = args.some((arg) => /^(-t|--threads)(=|$)/.test(arg))
    ? []
    : ["-t", String(defaultThreads())];
  const draft = draftSocket === undefined ? [] : ["--draft-socket", draftSocket];
  const measures = measuresFile === undefined ? [] : ["--draft-measures", measuresFile];
  return ["-m", modelPath, "--host", httpSocket, ...draft, ...measures, ...threads, ...args];
}

/** The engine's environment. A key of its own would lock the proxy out: who gets in is the proxy's business. */
export function engineEnvironment(
  own: Record<string, string>,
  base: NodeJS.ProcessEnv = process.env,
): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...base, ...own };
  for (const name of ["LLAMA_API_KEY", "LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_MODEL"])
    delete env[name];
  return env;
}

/** Physical cores, but no more than this process may use (affinity, container limit): decoding gains nothing from more. */
export function defaultThreads(): number {
  const limits = [availableParallelism(), physicalCores(), cgroupCores()];
  return Math.max(1, Math.min(...limits.filter((limit): limit is number => limit !== undefined)));
}

function physicalCores(): number | undefined {
  const info = readText("/proc/cpuinfo");
  return info === undefined ? undefined : countCores(info);
}

/** Number of distinct cores in the text of /proc/cpuinfo; undefined where it names none. */
export function countCores(cpuinfo: string): number | undefined {
  const cores = new Set<string>();
  for (const block of cpuinfo.split(/\n\s*\n/)) {
    const core = /^core id\s*:\s*(\d+)/m.exec(block)?.[1];
    if (core !== undefined) cores.add(`${/^physical id\s*:\s*(\d+)/m.exec(block)?.[1] ?? 0}/${core}`);
  }
  return cores.size > 0 ? cores.size : undefined;
}

/** The CPU quota of this process's container (cgroup v2), in whole cores. */
function cgroupCores(): number | undefined {
  const match = /^(\d+) (\d+)/.exec(readText("/sys/fs/cgroup/cpu.max") ?? "");
  return match ? Math.max(1, Math.ceil(Number(match[1]) / Number(match[2]))) : undefined;
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

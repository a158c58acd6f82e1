/**
 * Drafters for the engines of one folder: each engine that opens a socket there gets one, for as long as it lives. A single
 * server opens one; a router's servers come and go.
 */
import { readdirSync, rmSync, watch } from "node:fs";
import path from "node:path";
import { isAlive } from "../engine/run-folder.ts";
import { DraftingHost, type DraftingHostOptions } from "../link/host.ts";
import type { Log } from "../log.ts";
import type { DraftConfig } from "../options.ts";

/** Between two looks into the folder, beside those that the system asks for, ms. */
const LOOK_MS = 1000;
const SOCKET = /^(\d+)\.sock$/;

export class Engines {
  readonly #folder: string;
  readonly #drafts: DraftConfig;
  readonly #log: Log;
  readonly #hosts = new Map<string, DraftingHost>();
  readonly #leaving = new Set<Promise<void>>();
  readonly #stopWatching: () => void;
  /** The socket that a single server will open, until it has, or another one is there: then it is a router. */
  #expected: string | undefined;

  /** @param server process id of the server: its drafter is made ready while it loads its model. NaN: unknown */
  constructor(folder: string, drafts: DraftConfig, log: Log, server = Number.NaN) {
    this.#folder = folder;
    this.#drafts = drafts;
    this.#log = log;
    const look = (): void => this.#look();
    const timer = setInterval(look, LOOK_MS);
    const watcher = watch(folder, look);
    watcher.on("error", () => watcher.close());
    this.#stopWatching = () => {
      clearInterval(timer);
      watcher.close();
    };
    if (server > 0) {
      this.#expected = `${server}.sock`;
      this.#meet(this.#expected);
    }
    look();
  }

  async close(): Promise<void> {
    this.#stopWatching();
    for (const name of [...this.#hosts.keys()]) this.#leave(name);
    await Promise.all(this.#leaving);
  }

  #look(): void {
    const names = listSockets(this.#folder);
    if (names.length > 0 && this.#expected !== undefined) {
      // it need not wait for its next try
      if (names.includes(this.#expected)) this.#hosts.get(this.#expected)?.retryNow();
      this.#expected = undefined;
    }
    for (const name of this.#hosts.keys()) {
      if (!names.includes(name) && name !== this.#expected) this.#leave(name);
    }
    for (const name of names) if (!this.#hosts.has(name)) this.#meet(name);
  }

  #meet(name: string): void {
    const host = new DraftingHost({
      ...draftingOptions(this.#drafts),
      socketPath: path.join(this.#folder, name),
      log: this.#log.child({ engine_pid: Number.parseInt(name, 10) }),
    });
    this.#hosts.set(name, host);
    host.start();
  }

  #leave(name: string): void {
    const host = this.#hosts.get(name);
    this.#hosts.delete(name);
    if (host === undefined) return;
    const left = this.#stop(name, host).finally(() => this.#leaving.delete(left));
    this.#leaving.add(left);
  }

  async #stop(name: string, host: DraftingHost): Promise<void> {
    await host.stop();
    // the thread's last status is in by now
    const { steps, tokens, drafted_nodes, accepted_nodes, late } = host.snapshot();
    const engine_pid = Number.parseInt(name, 10);
    this.#log.info({ engine_pid, steps, tokens, drafted_nodes, accepted_nodes, late }, "engine gone");
  }
}

/** Sockets of engines that live; those of killed ones are removed. */
function listSockets(folder: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  return names.filter((name) => {
    const pid = Number(SOCKET.exec(name)?.[1] ?? 0);
    if (pid === 0 || isAlive(pid)) return pid !== 0;
    rmSync(path.join(folder, name), { force: true });
    return false;
  });
}

function draftingOptions(drafts: DraftConfig): Pick<DraftingHostOptions, "topK" | "drafter"> {
  const { top_k: topK, max_nodes: maxNodes, fixed_nodes, matrix_memory: matrixBytes, search } = drafts;
  return {
    topK,
    drafter: { maxNodes, fixedNodes: fixed_nodes === 0 ? undefined : fixed_nodes, matrixBytes, search },
  };
}

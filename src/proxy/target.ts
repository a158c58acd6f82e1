/** An engine's address in the forms that Node's HTTP client and http-proxy take. */
import { isIP } from "node:net";
import type { EngineAddress } from "../engine/engine.ts";
import { isLoopback } from "./origin.ts";

export interface Target {
  protocol: string;
  /** Host name, or address without brackets. */
  host: string;
  port: string;
  socketPath?: string;
}

export function targetOf({ origin, socketPath }: EngineAddress): Target {
  const { protocol, hostname, port } = new URL(origin);
  return { protocol, host: hostname.replace(/^\[|\]$/g, ""), port, socketPath };
}

/**
 * The `Host` to send to an engine that is reached by a name: the server there may tell its sites apart by it. Undefined for
 * sockets and bare addresses, which get the client's own.
 */
export function hostOf({ origin, socketPath }: EngineAddress): string | undefined {
  if (socketPath !== undefined) return undefined;
  let host = hosts.get(origin);
  if (host === undefined) {
    const url = new URL(origin);
    const name = url.hostname.replace(/^\[|\]$/g, "");
    host = isIP(name) !== 0 || isLoopback(name) ? "" : url.host;
    hosts.set(origin, host);
  }
  return host === "" ? undefined : host;
}

/** Found once per origin of an engine; "": the client's own. */
const hosts = new Map<string, string>();

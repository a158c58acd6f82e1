/**
 * Host and Origin checks. A web page can make a browser send requests to a local server (DNS rebinding: its own name
 * resolves to 127.0.0.1); the names in these two headers give it away.
 */
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { type Fault, forbidden } from "./faults.ts";

export interface OriginOptions {
  /** Host names to accept beside loopback names and IP addresses; `*.example.com` and `*` are understood. */
  allowedHosts?: readonly string[];
  /** Origins to accept beside loopback ones and the server's own, such as `https://chat.example.com`; `*`: any. */
  allowedOrigins?: readonly string[];
}

/** Host name without port, brackets and final dot, in lower case. */
function hostName(authority: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d*)?$/.exec(authority);
  const name = bracketed ? bracketed[1] : authority.replace(/:\d*$/, "");
  return name.toLowerCase().replace(/\.$/, "");
}

/** True for names and addresses that always mean this machine. */
export function isLoopback(name: string): boolean {
  const plain = hostName(name.includes(":") && isIP(name) === 6 ? `[${name}]` : name);
  if (plain === "localhost" || plain.endsWith(".localhost") || plain === "::1") return true;
  if (plain.startsWith("::ffff:")) return isLoopback(plain.slice(7));
  return isIP(plain) === 4 && plain.startsWith("127.");
}

export class OriginGuard {
  readonly #hosts: ReadonlySet<string>;
  readonly #suffixes: readonly string[];
  readonly #origins: ReadonlySet<string>;

  constructor(options: OriginOptions = {}) {
    const hosts = (options.allowedHosts ?? []).map((host) => host.trim().toLowerCase());
    this.#suffixes = hosts.filter((host) => host.startsWith("*.")).map((host) => host.slice(1));
    this.#hosts = new Set(
      hosts.filter((host) => !host.startsWith("*.")).map((h) => (h === "*" ? h : hostName(h))),
    );
    this.#origins = new Set((options.allowedOrigins ?? []).map((origin) => origin.trim().toLowerCase()));
  }

  /** The fault to answer with; undefined when both headers are fine. */
  check(request: IncomingMessage): Fault | undefined {
    const host = request.headers.host;
    if (host !== undefined && !this.#hostAllowed(hostName(host))) {
      return forbidden(
        `Requests for the host '${host}' are not served here; add it to the allowed hosts if it is yours`,
        "host_not_allowed",
      );
    }
    const origin = request.headers.origin;
    if (origin !== undefined && !this.#originAllowed(origin, host)) {
      return forbidden(
        `Requests from web pages of '${origin}' are not served here; add it to the allowed origins if it is yours`,
        "origin_not_allowed",
      );
    }
    return undefined;
  }

  /** An address cannot be rebound: the browser would send the name. */
  #hostAllowed(name: string): boolean {
    if (isIP(name) !== 0 || isLoopback(name) || this.#hosts.has(name) || this.#hosts.has("*")) return true;
    return this.#suffixes.some((suffix) => name.endsWith(suffix));
  }

  #originAllowed(origin: string, host: string | undefined): boolean {
    if (this.#origins.has("*") || this.#origins.has(origin.toLowerCase())) return true;
    let url: URL;
    try {
      url = new URL(origin);
    } catch {
      return false; // "null" too: any page can make one with a sandboxed frame
    }
    // Schemes of installed applications and extensions (app:, tauri:, vscode-webview: …) are out of a page's reach.
    if (url.protocol !== "http:" && url.protocol !== "https:") return true;
    return isLoopback(url.hostname) || (host !== undefined && url.host === host.toLowerCase());
  }
}

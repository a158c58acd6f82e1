/**
 * Header lists as they came from the wire (name, value, name, value …): which fields end at this hop, which are the
 * proxy's own. Order, letter case and repeated fields stay as they are.
 */

/** Fields that concern one connection only (RFC 9110, 7.6.1); the framing fields are handled beside them. */
const HOP_BY_HOP = new Set(["connection", "keep-alive", "proxy-connection", "upgrade"]);

/** Fields of a request that the proxy answers for itself: `Expect` was met here, the scope is never the client's to set. */
const OWN_REQUEST = new Set(["expect", "x-aded-scope"]);

/** Fields that a key of the proxy came in: who got in by one must not hand it on. */
const CREDENTIALS = new Set(["authorization", "x-api-key"]);

/** Fields that a `Connection` list must not remove: without them the message would mean something else. */
const NEVER_NOMINATED = new Set(["content-length", "transfer-encoding", "host"]);

/** Whether a request is to run with drafts. */
export type Arm = "on" | "off";

export interface RequestHeaderOptions {
  /**
   * Learning scope to set as `x-aded-scope`; none when empty. One that is not empty means that the client came in by a key of
   * the proxy's: that is not the engine's business and is left out.
   */
  scope?: string;
  /** What the engine itself wants as `Authorization`, in place of a key that was left out. */
  authorization?: string;
  /** Replaces the client's `Host`. */
  host?: string;
  /** What the client asked for: replaces its `x-aded` field by `x-aded: off` or by none. Undefined: the field stays. */
  wanted?: Arm;
  /** True: leave out the body's framing, because the body is sent from a buffer. */
  buffered?: boolean;
  /** True: keep `Connection` and `Upgrade` (for a WebSocket handshake). */
  upgrade?: boolean;
}

/** Names listed in `Connection` fields, in lower case; undefined when there are none but the usual ones. */
function nominated(raw: readonly string[]): Set<string> | undefined {
  let names: Set<string> | undefined;
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i].length !== 10 || raw[i].toLowerCase() !== "connection") continue;
    for (const part of raw[i + 1].split(",")) {
      const name = part.trim().toLowerCase();
      if (name === "" || name === "close" || HOP_BY_HOP.has(name) || NEVER_NOMINATED.has(name)) continue;
      names ??= new Set();
      names.add(name);
    }
  }
  return names;
}

/** The header list to send to the engine for a request with the header list `raw`. */
export function requestHeaders(raw: readonly string[], options: RequestHeaderOptions = {}): string[] {
  const dropped = nominated(raw);
  const out: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i].toLowerCase();
    if (options.scope && CREDENTIALS.has(name)) continue;
    if (OWN_REQUEST.has(name) || (name === "x-aded" && options.wanted !== undefined)) continue;
    if (HOP_BY_HOP.has(name) && !(options.upgrade && (name === "connection" || name === "upgrade"))) continue;
    if (options.buffered && (name === "content-length" || name === "transfer-encoding" || name === "trailer"))
      continue;
    // "TE: trailers" tells the engine that trailers will be passed on; anything else in TE is for this hop.
    if (name === "te" ? raw[i + 1].trim().toLowerCase() !== "trailers" : dropped?.has(name)) continue;
    out.push(raw[i], name === "host" ? (options.host ?? raw[i + 1]) : raw[i + 1]);
  }
  if (options.wanted === "off") out.push("x-aded", "off");
  if (options.scope) out.push("x-aded-scope", options.scope);
  if (options.scope && options.authorization !== undefined) out.push("Authorization", options.authorization);
  return out;
}

/**
 * The header list to send to the client for the engine's list `raw`.
 * @param http10 the client speaks HTTP/1.0: no chunks, the body ends with the connection
 */
export function responseHeaders(raw: readonly string[], http10: boolean): string[] {
  const dropped = nominated(raw);
  const out: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i].toLowerCase();
    if (HOP_BY_HOP.has(name) || name === "x-aded-arm" || dropped?.has(name)) continue;
    if (http10 && (name === "transfer-encoding" || name === "trailer")) continue;
    out.push(raw[i], raw[i + 1]);
  }
  return out;
}

/** Value of the first field called `name` (lower case), or undefined. */
export function headerValue(raw: readonly string[], name: string): string | undefined {
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i].length === name.length && raw[i].toLowerCase() === name) return raw[i + 1];
  }
  return undefined;
}

/** The arm that a request asks for in its `x-aded` field, "on" without one; undefined when the value is neither. */
export function wantedArm(value: string | string[] | undefined): Arm | undefined {
  if (value === undefined) return "on";
  const word = String(value).trim().toLowerCase();
  return word === "on" || word === "off" ? word : undefined;
}

/** How often the field `name` (lower case) occurs. */
export function headerCount(raw: readonly string[], name: string): number {
  let count = 0;
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i].length === name.length && raw[i].toLowerCase() === name) count++;
  }
  return count;
}

/** Pairs of a flat list, as `addTrailers` wants them. */
export function pairs(raw: readonly string[]): [string, string][] {
  const out: [string, string][] = [];
  for (let i = 0; i < raw.length; i += 2) out.push([raw[i], raw[i + 1]]);
  return out;
}

/**
 * Downloads over HTTP that survive interruption: what has come is kept in `<target>.part`, the next attempt asks for
 * the rest, and only a file whose checksum is right gets the target's name.
 */
import { createHash } from "node:crypto";
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import { rootCertificates } from "node:tls";
import { type Dispatcher, EnvHttpProxyAgent, fetch } from "undici";
import { AdedError, messageOf } from "../errors.ts";
import type { ProgressTask, WorkOptions } from "./progress.ts";

const IDLE_TIMEOUT_MS = 60_000;
const ATTEMPTS = 5;

export interface DownloadOptions extends Pick<WorkOptions, "signal"> {
  /** SHA-256 (hex) that the whole file must have. */
  sha256?: string;
  task?: ProgressTask;
  /** Wait before attempt n (from 1), ms. @default 0.5 s doubled each time */
  backoffMs?: (attempt: number) => number;
}

/** SHA-256 (hex) of a file. */
export async function sha256File(file: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash, { signal });
  return hash.digest("hex");
}

/**
 * Fetches `url` into `target`, going on where an earlier attempt stopped. Proxies of the environment are used.
 * @throws AdedError ADED_DOWNLOAD, ADED_CHECKSUM; the signal's reason when aborted (what has come stays)
 */
export async function downloadFile(
  url: string,
  target: string,
  options: DownloadOptions = {},
): Promise<void> {
  const { signal, sha256 } = options;
  const part = `${target}.part`;
  await mkdir(path.dirname(target), { recursive: true });
  const dispatcher = createDispatcher();
  try {
    const resumed = await fetchAll(url, part, dispatcher, options);
    if (sha256 !== undefined && (await sha256File(part, signal)) !== sha256) {
      await rm(part, { force: true });
      // the part that was there may have been another file's: once more, from the beginning
      if (resumed) await fetchAll(url, part, dispatcher, options);
      const actual = resumed ? await sha256File(part, signal) : "another";
      if (actual !== sha256) {
        await rm(part, { force: true });
        throw new AdedError("ADED_CHECKSUM", `${publicUrl(url)} does not have the checksum ${sha256}`, {
          hint: "run the command again; if it stays so, the server or a proxy on the way hands out another file",
        });
      }
    }
    await rename(part, target);
  } finally {
    await dispatcher.destroy();
  }
}

/** Fetches until the part file is whole; returns whether it began with bytes of an earlier call. */
async function fetchAll(
  url: string,
  part: string,
  dispatcher: Dispatcher,
  options: DownloadOptions,
): Promise<boolean> {
  const { signal, backoffMs = (attempt: number) => 250 * 2 ** attempt } = options;
  const resumed = (await sizeOf(part)) > 0;
  for (let attempt = 1; ; attempt++) {
    const before = await sizeOf(part);
    try {
      await fetchRest(url, part, dispatcher, options);
      return resumed;
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof AdedError) throw error;
      if ((await sizeOf(part)) > before) attempt = 1;
      if (attempt >= ATTEMPTS) {
        throw new AdedError("ADED_DOWNLOAD", `${publicUrl(url)}: ${messageOf(rootCause(error))}`, {
          cause: error,
          hint: "check the network (HTTPS_PROXY, NODE_EXTRA_CA_CERTS); the same command goes on where this one stopped",
        });
      }
      await delay(backoffMs(attempt), undefined, { signal });
    }
  }
}

async function fetchRest(
  url: string,
  part: string,
  dispatcher: Dispatcher,
  options: DownloadOptions,
): Promise<void> {
  const { signal, task } = options;
  const have = await sizeOf(part);
  const headers: Record<string, string> = { "accept-encoding": "identity" };
  if (have > 0) headers.range = `bytes=${have}-`;
  const response = await fetch(url, { headers, signal, dispatcher });
  if (response.status === 416) {
    // nothing is left to send; the checksum decides whether what is there is right
    await response.body?.cancel();
    const total = Number(/\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1] ?? have);
    if (total === have) return;
    await rm(part, { force: true });
    throw new Error(`the part file holds ${have} bytes, the file ${total}`);
  }
  if (!response.ok || response.body === null) {
    await response.body?.cancel();
    if (response.status >= 500 || response.status === 429) throw new Error(`HTTP status ${response.status}`);
    throw new AdedError("ADED_DOWNLOAD", `${publicUrl(url)}: HTTP status ${response.status}`, {
      hint: "check the address, and that the index serves this file",
    });
  }
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
  const goesOn = response.status === 206 && range !== null && Number(range[1]) === have;
  if (response.status === 206 && !goesOn) {
    await response.body.cancel();
    await rm(part, { force: true });
    throw new Error("the server answered with another range than the one asked for");
  }
  let done = goesOn ? have : 0;
  const length = Number(response.headers.get("content-length") ?? Number.NaN);
  const total = goesOn ? Number(range?.[2]) : length;
  const file = await open(part, goesOn ? "a" : "w");
  try {
    for await (const chunk of response.body) {
      await file.writeFile(chunk as Uint8Array);
      done += (chunk as Uint8Array).length;
      task?.update(done, total || 0);
    }
  } finally {
    await file.close();
  }
  if (Number.isFinite(total) && done !== total)
    throw new Error(`the connection ended after ${done} of ${total} bytes`);
}

async function sizeOf(file: string): Promise<number> {
  return existsSync(file) ? (await stat(file)).size : 0;
}

/** Uses the proxies of the environment, and the certificates that pip, Python and Node are told to trust. */
function createDispatcher(): Dispatcher {
  const files = ["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"]
    .map((name) => process.env[name])
    .filter((file): file is string => file !== undefined && file !== "" && existsSync(file));
  const extra = [...new Set(files)].map((file) => readFileSync(file, "utf8"));
  const tls = extra.length > 0 ? { ca: [...rootCertificates, ...extra] } : {};
  return new EnvHttpProxyAgent({
    headersTimeout: IDLE_TIMEOUT_MS,
    bodyTimeout: IDLE_TIMEOUT_MS,
    connect: { timeout: 20_000, ...tls },
    requestTls: tls,
    proxyTls: tls,
  });
}

/** The address without credentials, for messages. */
function publicUrl(url: string): string {
  const parsed = new URL(url);
  parsed.username = "";
  parsed.password = "";
  return parsed.href;
}

/** fetch says only "fetch failed"; the reason is its cause. */
function rootCause(error: unknown): unknown {
  return error instanceof Error && error.cause !== undefined ? rootCause(error.cause) : error;
}

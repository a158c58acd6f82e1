/** The hub's downloader against a hub on this machine. */
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { fetchFromHub } from "../../../src/engine/hub.ts";

const bytes = randomBytes(300_000);
let folder: string;
let hub: Server;
let seen: { method: string; url: string; range?: string; token?: string }[];
/** Breaks off the first answers with a body after so many bytes. */
let breaks: number;
const env = { ...process.env };

function answer(request: IncomingMessage, response: ServerResponse): void {
  const { method = "", url = "", headers } = request;
  seen.push({ method, url, range: headers.range, token: headers.authorization });
  if (!url.includes("/resolve/main/tiny.gguf")) {
    response.writeHead(404).end();
    return;
  }
  if (url.startsWith("/gated/") && headers.authorization !== "Bearer hf_secret") {
    response.writeHead(401).end();
    return;
  }
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") ?? [];
  const start = Number(from ?? 0);
  const end = to ? Number(to) + 1 : bytes.length;
  response.writeHead(headers.range ? 206 : 200, {
    "accept-ranges": "bytes",
    "content-length": end - start,
    ...(headers.range && { "content-range": `bytes ${start}-${end - 1}/${bytes.length}` }),
    etag: '"1"',
  });
  if (method === "HEAD") response.end();
  else if (breaks-- > 0) response.write(bytes.subarray(start, start + 1000), () => response.destroy());
  else response.end(bytes.subarray(start, end));
}

beforeEach(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-hub-"));
  seen = [];
  breaks = 0;
  hub = createServer(answer);
  await new Promise<void>((resolve) => hub.listen(0, "127.0.0.1", resolve));
  process.env.HF_ENDPOINT = `http://127.0.0.1:${(hub.address() as AddressInfo).port}/`;
  process.env.HF_TOKEN = "hf_secret";
});
afterEach(async () => {
  process.env = { ...env };
  hub.closeAllConnections();
  await new Promise((resolve) => hub.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

const digest = (data: Buffer): string => createHash("sha256").update(data).digest("hex");

it("fetches a file once", async () => {
  const file = await fetchFromHub("hf:someone/tiny/tiny.gguf", folder);
  expect(digest(readFileSync(file))).toBe(digest(bytes));
  const before = seen.length;
  expect(await fetchFromHub("hf:someone/tiny/tiny.gguf", folder)).toBe(file);
  expect(seen.slice(before).filter(({ method }) => method === "GET")).toEqual([]);
}, 120_000);

it("shows the token of the environment where the hub asks for one", async () => {
  const file = await fetchFromHub("hf:gated/tiny/tiny.gguf", folder);
  expect(digest(readFileSync(file))).toBe(digest(bytes));
  expect(seen.some(({ token }) => token === "Bearer hf_secret")).toBe(true);
  delete process.env.HF_TOKEN;
  rmSync(file);
  await expect(fetchFromHub("hf:gated/tiny/tiny.gguf", folder)).rejects.toMatchObject({
    code: "ADED_DOWNLOAD",
  });
}, 120_000);

it("goes on after a connection that broke", async () => {
  breaks = 1;
  const file = await fetchFromHub("hf:someone/tiny/tiny.gguf", folder);
  expect(digest(readFileSync(file))).toBe(digest(bytes));
}, 120_000);

it("says what it could not find", async () => {
  await expect(fetchFromHub("hf:someone/none/none.gguf", folder)).rejects.toMatchObject({
    code: "ADED_DOWNLOAD",
  });
}, 120_000);

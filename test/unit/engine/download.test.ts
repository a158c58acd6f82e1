import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import { downloadFile } from "../../../src/engine/download.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();
const content = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 7 + (i >> 8)) & 255));
const sha256 = createHash("sha256").update(content).digest("hex");
const backoffMs = (): number => 1;

let close: (() => void) | undefined;
afterEach(() => close?.());

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

async function serve(handler: Handler): Promise<string> {
  const server = createServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  close = () => {
    server.closeAllConnections();
    server.close();
  };
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/file`;
}

/** Serves `content` with ranges, and breaks the connection after `most` bytes. */
function ranged(asked: string[], most = Number.POSITIVE_INFINITY): Handler {
  return (request, response) => {
    asked.push(request.headers.range ?? "all");
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    if (from >= content.length) {
      response.writeHead(416, { "content-range": `bytes */${content.length}` }).end();
      return;
    }
    const rest = content.subarray(from);
    response.writeHead(from > 0 ? 206 : 200, {
      "content-length": rest.length,
      ...(from > 0 ? { "content-range": `bytes ${from}-${content.length - 1}/${content.length}` } : {}),
    });
    if (rest.length <= most) response.end(rest);
    else response.write(rest.subarray(0, most), () => response.destroy());
  };
}

describe("downloadFile", () => {
  it("goes on where the connection broke, in one call", async () => {
    const asked: string[] = [];
    const url = await serve(ranged(asked, 90_000));
    const target = path.join(home, "a");
    await downloadFile(url, target, { sha256, backoffMs });
    expect(readFileSync(target).equals(content)).toBe(true);
    expect(asked).toEqual(["all", "bytes=90000-", "bytes=180000-"]);
    expect(existsSync(`${target}.part`)).toBe(false);
  });

  it("goes on with the part of an earlier call that was interrupted", async () => {
    const asked: string[] = [];
    const target = path.join(home, "b");
    const abort = new AbortController();
    const slow = await serve((_request, response) => {
      response.writeHead(200, { "content-length": content.length });
      response.write(content.subarray(0, 50_000));
    });
    const task = { update: () => abort.abort(new Error("Ctrl-C")), end: () => {} };
    await expect(downloadFile(slow, target, { sha256, signal: abort.signal, task })).rejects.toThrow();
    expect(existsSync(target)).toBe(false);
    close?.();
    const kept = readFileSync(`${target}.part`).length;
    expect(kept).toBeGreaterThan(0);
    await downloadFile(await serve(ranged(asked)), target, { sha256 });
    expect(asked).toEqual([`bytes=${kept}-`]);
    expect(readFileSync(target).equals(content)).toBe(true);
  });

  it("takes a part that is whole already", async () => {
    const target = path.join(home, "c");
    writeFileSync(`${target}.part`, content);
    await downloadFile(await serve(ranged([])), target, { sha256 });
    expect(readFileSync(target).equals(content)).toBe(true);
  });

  it("begins anew when the part is not of this file", async () => {
    const asked: string[] = [];
    const target = path.join(home, "d");
    writeFileSync(`${target}.part`, Buffer.alloc(1000, 1));
    await downloadFile(await serve(ranged(asked)), target, { sha256 });
    expect(asked).toEqual(["bytes=1000-", "all"]);
    expect(readFileSync(target).equals(content)).toBe(true);
  });

  it("begins anew when the server knows no ranges", async () => {
    const target = path.join(home, "e");
    writeFileSync(`${target}.part`, content.subarray(0, 10));
    await downloadFile(await serve((_request, response) => response.end(content)), target, { sha256 });
    expect(readFileSync(target).equals(content)).toBe(true);
  });

  it("keeps nothing that has the wrong checksum", async () => {
    const target = path.join(home, "f");
    const work = downloadFile(await serve(ranged([])), target, { sha256: "0".repeat(64) });
    await expect(work).rejects.toMatchObject({ code: "ADED_CHECKSUM" });
    expect([existsSync(target), existsSync(`${target}.part`)]).toEqual([false, false]);
  });

  it("tries again after a server's fault, not after a client's", async () => {
    let requests = 0;
    const url = await serve((_request, response) => {
      requests++;
      if (requests < 3) response.writeHead(503).end();
      else response.end(content);
    });
    await downloadFile(url, path.join(home, "g"), { sha256, backoffMs });
    expect(requests).toBe(3);
    close?.();
    const gone = downloadFile(
      await serve((_q, response) => response.writeHead(404).end()),
      path.join(home, "h"),
      { backoffMs },
    );
    await expect(gone).rejects.toThrow(/HTTP status 404$/);
  });

  it("gives up on a server that is not there, and says why", async () => {
    const url = await serve(ranged([]));
    close?.();
    const work = downloadFile(url, path.join(home, "i"), { backoffMs });
    await expect(work).rejects.toMatchObject({
      code: "ADED_DOWNLOAD",
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });
});

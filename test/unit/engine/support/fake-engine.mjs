#!/usr/bin/env node
/**
 * Stands in for llama-server: takes its flags, listens on a Unix socket or a port, answers /health and /tree-verify.
 * FAKE_STOCK=1: knows no draft socket. FAKE_DIE=1: ends at once. FAKE_LOADING=n: so many times "loading" first.
 * FAKE_STUBBORN=1: ignores SIGTERM. POST /die ends it in mid-answer.
 */
import { appendFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";

const args = process.argv.slice(2);
const value = (flag) => (args.includes(flag) ? args[args.indexOf(flag) + 1] : undefined);
const stock = process.env.FAKE_STOCK === "1";

if (args.includes("--help")) {
  console.log(`usage: llama-server\n--host HOST\n${stock ? "" : "--draft-socket PATH\n"}`);
  process.exit(0);
}
if (process.env.FAKE_RECORD) {
  const folder = path.dirname(value("--host"));
  const record = {
    args,
    mode: (statSync(folder).mode & 0o777).toString(8),
    key: process.env.LLAMA_API_KEY ?? null,
    own: process.env.OWN ?? null,
  };
  appendFileSync(process.env.FAKE_RECORD, `${JSON.stringify(record)}\n`);
}
console.error("fake engine: loading");
if (process.env.FAKE_DIE === "1") {
  console.error("fake engine: bad weights");
  process.exit(7);
}
process.on("SIGTERM", () => process.env.FAKE_STUBBORN === "1" || process.exit(0));

let loading = Number(process.env.FAKE_LOADING ?? 0);
const server = createServer((request, response) => {
  const status = {
    "GET /health": () => (loading-- > 0 ? 503 : 200),
    "POST /tree-verify": () => (stock ? 404 : 400),
    "POST /die": () => process.kill(process.pid, "SIGKILL"),
  }[`${request.method} ${request.url}`];
  response.writeHead(status?.() ?? 404, { "content-type": "application/json" }).end("{}");
});
const host = value("--host");
if (host?.endsWith(".sock")) server.listen(host);
else server.listen(Number(value("--port") ?? 0), "127.0.0.1", () => console.log(server.address().port));
process.on("exit", () => host?.endsWith(".sock") && rmSync(host, { force: true }));

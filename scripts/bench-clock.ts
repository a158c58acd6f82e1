/**
 * Do the figures of `aded bench ab` agree with a count that shares no code with it? Between it and the server stands a relay that has a clock of
 * its own and keeps what the engine says of each request (its timings); both are compared with the report of the same requests.
 *
 *     npx aded serve &
 *     npx tsx scripts/bench-clock.ts [--url http://127.0.0.1:8080] [--max-tokens 128] [--repeat 1]
 *
 * Exit status 1 when decode times differ from the engine's by more than 2 %, or times between texts from the relay's clock by more than 3 %.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import type { AbReport } from "../src/bench/ab-report.ts";
import { projectPath } from "../src/home.ts";

const MOST_ENGINE = 0.02;
const MOST_CLOCK = 0.03;

/** One request, as the relay saw it; times in ms. */
interface Seen {
  arm: string;
  /** From the first text to the last, and from the request to the end. */
  textMs: number;
  wholeMs: number;
  engineMs: number;
  tokens: number;
}

const { values } = parseArgs({
  options: {
    url: { type: "string", default: "http://127.0.0.1:8080" },
    "max-tokens": { type: "string", default: "128" },
    repeat: { type: "string", default: "1" },
  },
});
const target = new URL(values.url);
const seen: Seen[] = [];

const relay = createServer((incoming, outgoing) => {
  const started = performance.now();
  const { method, url, headers } = incoming;
  const onward = request(
    { host: target.hostname, port: target.port, method, path: url, headers },
    (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      if (url === "/v1/chat/completions") watch(answer, { started, arm: String(headers["x-aded"]) });
      answer.pipe(outgoing);
    },
  );
  onward.on("error", () => outgoing.destroy());
  outgoing.on("close", () => onward.destroy());
  incoming.pipe(onward);
});

function watch(answer: IncomingMessage, { started, arm }: { started: number; arm: string }): void {
  let first: number | undefined;
  let last = 0;
  let rest = "";
  let engine: { predicted_ms: number; predicted_n: number } | undefined;
  answer.on("data", (chunk: Buffer) => {
    const now = performance.now();
    const lines = (rest + chunk.toString()).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (!line.startsWith("data: {")) continue;
      const event = JSON.parse(line.slice(6)) as {
        choices?: { delta?: { content?: string | null } }[];
        timings?: { predicted_ms: number; predicted_n: number };
      };
      if (event.choices?.[0]?.delta?.content) {
        first ??= now;
        last = now;
      }
      engine = event.timings ?? engine;
    }
  });
  answer.on("end", () => {
    if (first === undefined || engine === undefined) return;
    const wholeMs = performance.now() - started;
    const { predicted_ms: engineMs, predicted_n: tokens } = engine;
    seen.push({ arm, textMs: last - first, wholeMs, engineMs, tokens });
  });
}

relay.listen(0, "127.0.0.1");
await once(relay, "listening");
const folder = await mkdtemp(path.join(tmpdir(), "aded-clock-"));
try {
  const file = path.join(folder, "report.json");
  const how = [
    "--warmup",
    "0",
    "--max-tokens",
    values["max-tokens"],
    "--repeat",
    values.repeat,
    "--json",
    file,
  ];
  const url = `http://127.0.0.1:${(relay.address() as AddressInfo).port}`;
  const child = spawn(
    process.execPath,
    [projectPath("bin", "aded.js"), "bench", "ab", "--url", url, ...how],
    {
      stdio: ["ignore", "ignore", "inherit"],
    },
  );
  const [status] = (await once(child, "close")) as [number];
  if (status !== 0) throw new Error(`bench ab ended with status ${status}`);
  compare(JSON.parse(readFileSync(file, "utf8")) as AbReport);
} finally {
  relay.close();
  await rm(folder, { recursive: true, force: true });
}

function compare(report: AbReport): void {
  const rows = (["on", "off"] as const).map((arm) => {
    const own = seen.filter((one) => one.arm === arm);
    const told = report.samples.filter((sample) => sample.arm === arm && sample.error === null);
    const sum = <T>(list: readonly T[], of: (one: T) => number): number =>
      list.reduce((all, one) => all + of(one), 0);
    return {
      arm,
      requests: { report: told.length, relay: own.length },
      tokens: off(
        sum(told, (one) => one.predicted_n),
        sum(own, ({ tokens }) => tokens),
      ),
      decode: off(
        report.arms[arm].decode_ms,
        sum(own, ({ engineMs }) => engineMs),
      ),
      text: off(
        sum(told, ({ gaps_ms }) => sum(gaps_ms, (gap) => gap)),
        sum(own, ({ textMs }) => textMs),
      ),
      whole: off(
        sum(told, ({ e2e_ms }) => e2e_ms ?? 0),
        sum(own, ({ wholeMs }) => wholeMs),
      ),
    };
  });
  const engine = (arm: string): number =>
    seen.filter((one) => one.arm === arm).reduce((all, { engineMs }) => all + engineMs, 0);
  const ratio = { report: report.overall.ratio, relay: engine("off") / engine("on") };
  console.log(JSON.stringify({ arms: rows, ratio, same_text: report.same_text, n: report.n }));
  const ok = rows.every(
    ({ requests, tokens, decode, text, whole }) =>
      requests.report === requests.relay &&
      tokens === 0 &&
      Math.abs(decode) <= MOST_ENGINE &&
      Math.abs(text) <= MOST_CLOCK &&
      Math.abs(whole) <= MOST_CLOCK,
  );
  if (!ok) process.exitCode = 1;
}

/** By how much the report's figure differs, relative. */
function off(figure: number, from: number): number {
  return figure / from - 1;
}

/**
 * `npm run test:asan`: builds llama-server of the patched engine with AddressSanitizer (about half an hour of CPU time, once)
 * and lets a hostile peer loose on its draft link while requests are decoded. It has to survive without a report, give
 * the text it gave before, and end without leaks. The last line is "N passed, N failed".
 *
 *   npm run test:asan -- [--seconds 60] [--seed 1] [--model NAME|file:PATH] [--server PATH]
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { installInterrupt, interruptSignal } from "../src/cli/interrupt.ts";
import { createProgress } from "../src/cli/progress.ts";
import { Random } from "../src/drafter/random.ts";
import { ensureEngine } from "../src/engine/build.ts";
import { spawnGroup } from "../src/engine/child.ts";
import { defaultModelName, ensureModel } from "../src/engine/models.ts";
import { EngineClient, load } from "./asan-load.ts";
import { attack } from "./asan-peer.ts";

const SLOTS = 4;
/** The sanitizer makes decoding some ten times slower: larger trees would only take longer. */
const MAX_NODES = 12;
const START_MS = 120_000;
const STOP_MS = 60_000;
const PROMPT = "Once upon a time, in a small village by the sea,";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: "1" },
    model: { type: "string", default: defaultModelName },
    server: { type: "string" },
  },
});

let passed = 0;
let failed = 0;

function check(ok: boolean, title: string, detail = ""): void {
  if (ok) passed++;
  else failed++;
  console.log(`${ok ? "ok    " : "FAILED"} ${title}${ok || detail === "" ? "" : `: ${detail}`}`);
}

installInterrupt();
const progress = createProgress();
const server =
  values.server ?? (await ensureEngine({ flavour: "asan", signal: interruptSignal, progress })).serverPath;
const model = await ensureModel(values.model, { signal: interruptSignal, progress });
const folder = mkdtempSync(path.join(tmpdir(), "aded-asan-"));
try {
  await run();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

async function run(): Promise<void> {
  const draftSocket = path.join(folder, "draft.sock");
  const httpSocket = path.join(folder, "http.sock");
  const args = ["-m", model, "--host", httpSocket, "--draft-socket", draftSocket];
  const limits = ["-t", "1", "-c", "4096", "-np", String(SLOTS), "--draft-max-nodes", String(MAX_NODES)];
  const child = spawnGroup(server, [...args, ...limits], {
    env: {
      ...process.env,
      ASAN_OPTIONS: `halt_on_error=1:exitcode=99:log_path=${path.join(folder, "report")}`,
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const log = collectLines(child.stderr as NodeJS.ReadableStream);
  const status = new Promise<number | string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(code ?? String(signal)));
  });
  const client = new EngineClient(httpSocket);
  try {
    if (await until(() => client.healthy(), START_MS, status)) await siege(client, draftSocket, log);
    else check(false, "the server starts", log.slice(-5).join("\n"));
  } finally {
    await client.close();
    child.kill("SIGINT");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    const ended = await status;
    clearTimeout(timer);
    check(
      ended === 0,
      "the server ends by itself, without leaks",
      `status ${ended}\n${log.slice(-5).join("\n")}`,
    );
    const reports = readdirSync(folder).filter((name) => name.startsWith("report"));
    const text = reports.map((name) => readFileSync(path.join(folder, name), "utf8")).join("\n");
    check(reports.length === 0, "AddressSanitizer has nothing to report", text.slice(0, 8000));
  }
}

async function siege(client: EngineClient, draftSocket: string, log: readonly string[]): Promise<void> {
  const seed = Number(values.seed);
  const before = await client.plain(PROMPT);
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), 1000 * Number(values.seconds));
  interruptSignal.addEventListener("abort", () => ending.abort());
  const over = ending.signal;
  const [peer, ...loads] = await Promise.all([
    attack(draftSocket, new Random(seed), over).catch((error: Error) => error),
    ...Array.from({ length: SLOTS + 1 }, (_, i) => load(client, new Random(seed + 1 + i), over)),
  ]);
  clearTimeout(timer);
  if (peer instanceof Error) check(false, "the engine's frames keep to the protocol", peer.message);
  else {
    for (const [name, count] of peer.connections) console.log(`       ${count} × ${name}`);
    check(true, "the engine's frames keep to the protocol");
    check(peer.errors > 0, "the engine answers with error frames");
  }
  const outcomes = new Map<string, number>();
  for (const report of loads) {
    for (const [name, count] of report.outcomes) outcomes.set(name, (outcomes.get(name) ?? 0) + count);
  }
  for (const [name, count] of [...outcomes].sort()) console.log(`       ${count} × ${name}`);
  const faults = loads.flatMap((report) => report.faults);
  const drafted = loads.reduce((sum, report) => sum + report.drafted, 0);
  const accepted = loads.reduce((sum, report) => sum + report.accepted, 0);
  console.log(`       ${drafted} draft nodes verified, ${accepted} accepted`);
  check(accepted > 0, "drafts are verified meanwhile, and some accepted");
  check(faults.length === 0, "every request is answered as it should be", faults.slice(0, 5).join("\n"));
  check(await client.healthy(), "the server is healthy");
  check((await client.plain(PROMPT)) === before, "the server gives the text that it gave before");
  // the engine says some eight lines about each request by itself
  const requests = [...outcomes.values()].reduce((sum, count) => sum + count, 0);
  check(
    log.length < 1000 + 8 * requests,
    "the log is no flood",
    `${log.length} lines for ${requests} requests`,
  );
}

/** True once `done` is; false when the time is up or the server has ended. */
async function until(done: () => Promise<boolean>, ms: number, ended: Promise<unknown>): Promise<boolean> {
  let over = false;
  void ended.then(() => {
    over = true;
  });
  const end = Date.now() + ms;
  while (!over && Date.now() < end) {
    if (await done()) return true;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return false;
}

function collectLines(stream: NodeJS.ReadableStream): string[] {
  const lines: string[] = [];
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (text: string) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
  });
  return lines;
}

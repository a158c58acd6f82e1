/**
 * How fast texts become a corpus, in how much memory, and how fast the tokenizer alone would be on the same texts (Linux).
 *
 *     npx tsx scripts/corpus-rate.ts [--workers 2] [--sample-mb 16] [--model M.gguf] RECORDS.jsonl…      (The Stack's format)
 *
 * The tokenizer's limit: as many processes as workers tokenise the first texts and do nothing else; the time to load it is not in it.
 * `peak_bytes` is the largest sum of what the build's processes held in memory at one time, looked at ten times a second.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import type { BuildReport } from "../src/corpus/build.ts";
import { PIECE_CHARS, pieceEnd } from "../src/corpus/text-grams.ts";
import { loadTokenizer } from "../src/corpus/tokenizer.ts";
import { defaultModelName, ensureModel } from "../src/engine/models.ts";
import { projectPath } from "../src/home.ts";

const LOOK_MS = 100;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    workers: { type: "string", default: "2" },
    "sample-mb": { type: "string", default: "16" },
    model: { type: "string" },
    "tokenize-only": { type: "boolean", default: false },
  },
});
if (positionals.length === 0) {
  console.error(
    "usage: npx tsx scripts/corpus-rate.ts [--workers N] [--sample-mb MB] [--model M] RECORDS.jsonl…",
  );
  process.exit(2);
}
const sampleBytes = Number(values["sample-mb"]) * 1e6;
const modelPath = values.model ?? (await ensureModel(defaultModelName));

if (values["tokenize-only"]) await tokenizeOnly();
else await measure();

async function measure(): Promise<void> {
  const workers = Number(values.workers);
  const alone = await Promise.all(Array.from({ length: workers }, () => limitOfOne()));
  const folder = await mkdtemp(path.join(tmpdir(), "aded-rate-"));
  try {
    const out = path.join(folder, "rate.parquet");
    const how = [
      "--format",
      "stack",
      "--model",
      modelPath,
      "--workers",
      values.workers,
      "--out",
      out,
      "--json",
    ];
    const started = performance.now();
    const child = spawn(
      process.execPath,
      [projectPath("bin", "aded.js"), "corpus", "build", ...how, ...positionals],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    let peak = 0;
    let cpu = 0;
    const timer = setInterval(() => {
      const { bytes, seconds } = held(child.pid as number);
      peak = Math.max(peak, bytes);
      cpu = Math.max(cpu, seconds);
    }, LOOK_MS);
    const report = JSON.parse(await printed(child)) as BuildReport;
    clearInterval(timer);
    const seconds = (performance.now() - started) / 1000;
    console.log(
      JSON.stringify({
        text_bytes: report.text_bytes,
        tokens: report.tokens,
        rows: report.rows,
        file_bytes: report.file_bytes,
        seconds: { ...report.seconds, all: seconds },
        cpu_seconds: cpu,
        mb_per_s: report.text_bytes / 1e6 / seconds,
        mb_per_cpu_s: report.text_bytes / 1e6 / cpu,
        tokenizer_mb_per_s: alone.reduce((sum, rate) => sum + rate, 0),
        peak_bytes: peak,
      }),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** MB/s of one process beside the others. */
async function limitOfOne(): Promise<number> {
  const args = ["--import", "tsx", projectPath("scripts", "corpus-rate.ts"), "--tokenize-only"];
  const how = ["--model", modelPath, "--sample-mb", values["sample-mb"], positionals[0]];
  const child = spawn(process.execPath, [...args, ...how], { stdio: ["ignore", "pipe", "inherit"] });
  return Number(await printed(child));
}

async function printed(child: ChildProcess): Promise<string> {
  let text = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  const [status] = (await once(child, "close")) as [number];
  if (status !== 0) throw new Error(`exit status ${status}`);
  return text;
}

async function tokenizeOnly(): Promise<void> {
  const texts: string[] = [];
  let bytes = 0;
  for await (const line of createInterface({ input: createReadStream(positionals[0]) })) {
    const { content } = JSON.parse(line) as { content: string };
    texts.push(content);
    bytes += Buffer.byteLength(content);
    if (bytes >= sampleBytes) break;
  }
  const tokenizer = await loadTokenizer(modelPath);
  const started = performance.now();
  for (const text of texts) {
    for (let from = 0; from < text.length; ) {
      const end = pieceEnd(text, from, PIECE_CHARS);
      tokenizer.tokenize(text.slice(from, end), false, from > 0);
      from = end;
    }
  }
  console.log(bytes / 1e6 / ((performance.now() - started) / 1000));
  await tokenizer.dispose();
}

/** Resident memory and processor time of a process and all that it started. */
function held(root: number): { bytes: number; seconds: number } {
  const parents = new Map<number, number>();
  const pages = new Map<number, number>();
  const ticks = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      // after the name, which may hold spaces: state, parent, …
      const fields = readFileSync(`/proc/${name}/stat`, "utf8")
        .replace(/^.*\) /s, "")
        .split(" ");
      parents.set(Number(name), Number(fields[1]));
      ticks.set(Number(name), Number(fields[11]) + Number(fields[12]));
      pages.set(Number(name), Number(fields[21]));
    } catch {
      // it has ended
    }
  }
  const isOurs = (pid: number | undefined): boolean =>
    pid !== undefined && (pid === root || (pid > 1 && isOurs(parents.get(pid))));
  let bytes = 0;
  let seconds = 0;
  for (const pid of parents.keys()) {
    if (!isOurs(pid)) continue;
    bytes += (pages.get(pid) ?? 0) * 4096;
    seconds += (ticks.get(pid) ?? 0) / 100;
  }
  return { bytes, seconds };
}

/**
 * Measures what docs/results.md shows, and writes its tables: `aded bench ab` for models, types, sampling and slots, and `aded bench peers`. Each
 * measurement is a file in the output folder; a complete one is not repeated, so a run that was broken off goes on with the same command.
 *
 *     npx tsx scripts/results.ts mt_bench.jsonl humaneval.jsonl [--limit 20] [--max-tokens 160] [--peers-limit 6] [--threads 2] [--out DIR] [--md F]
 *
 * `--md` writes the tables of what is in the folder; with `--report` nothing is measured.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { readReport } from "../src/bench/ab-file.ts";
import type { PeersReport } from "../src/bench/peers.ts";
import type { RatioReport } from "../src/bench/ratio.ts";
import { homePath } from "../src/home.ts";

const { values, positionals: prompts } = parseArgs({
  allowPositionals: true,
  options: {
    limit: { type: "string", default: "20" },
    "max-tokens": { type: "string", default: "160" },
    "peers-limit": { type: "string", default: "6" },
    threads: { type: "string", default: "2" },
    out: { type: "string", default: homePath("results") },
    md: { type: "string" },
    only: { type: "string", default: "" },
    report: { type: "boolean", default: false },
  },
});

const MODELS: readonly { name: string; type?: string }[] = [
  { name: "SmolLM2-135M-Instruct", type: "BF16" },
  { name: "SmolLM2-135M-Instruct", type: "Q8_0" },
  { name: "SmolLM2-135M-Instruct", type: "Q4_0" },
  { name: "gemma-3-270m" },
];
const SAMPLING = ["0", "0.8"];
const SLOTS = ["1", "4"];
const folder = path.resolve(values.out);

function aded(args: readonly string[], quiet = false): string {
  const done = spawnSync(process.execPath, ["bin/aded.js", ...args], {
    encoding: "utf8",
    stdio: ["ignore", quiet ? "pipe" : "inherit", "inherit"],
  });
  if (done.status !== 0) throw new Error(`aded ${args.join(" ")} ends with status ${done.status}`);
  return done.stdout ?? "";
}

function titleOf({ name, type }: (typeof MODELS)[number]): string {
  return `${name}.${type ?? "as it is"}`;
}

/** The config for a model, with its file made if need be; its path. */
function configFor(model: (typeof MODELS)[number]): string {
  const quantize = model.type === undefined ? [] : ["--quantize", model.type];
  const pulled = JSON.parse(aded(["models", "pull", model.name, ...quantize, "--json"], true)) as {
    path: string;
  };
  const file = path.join(folder, `${model.name}.${model.type ?? "own"}.yaml`);
  const text = `models:
  ${model.name}:
    source: ${JSON.stringify(`file:${pulled.path}`)}
    args: -c 8192 -np 4 -kvu -t ${values.threads}
    drafts: { snapshot_seconds: 0 }
`;
  writeFileSync(file, text);
  return file;
}

function complete(file: string): boolean {
  return existsSync(file) && (JSON.parse(readFileSync(file, "utf8")) as { complete: boolean }).complete;
}

function abFile(model: (typeof MODELS)[number], temperature: string, slots: string): string {
  return path.join(folder, `${model.name}.${model.type ?? "own"}-t${temperature}-${slots}.json`);
}

function peersFile(model: (typeof MODELS)[number]): string {
  return path.join(folder, `${model.name}.${model.type ?? "own"}-peers.json`);
}

function measure(): void {
  if (prompts.length === 0) throw new Error("name the files with prompts");
  mkdirSync(folder, { recursive: true });
  for (const model of MODELS.filter((m) => titleOf(m).includes(values.only))) {
    const config = configFor(model);
    const common = ["--config", config, "--prompts", ...prompts];
    for (const temperature of SAMPLING) {
      for (const slots of SLOTS) {
        const file = abFile(model, temperature, slots);
        if (complete(file)) continue;
        console.error(`${titleOf(model)}, temperature ${temperature}, ${slots} at once`);
        const own = ["--limit", values.limit, "--max-tokens", values["max-tokens"]];
        const cell = ["--temperature", temperature, "--concurrency", slots];
        aded(["bench", "ab", ...common, ...own, ...cell, "--json", file], true);
      }
    }
    if (complete(peersFile(model))) continue;
    console.error(`${titleOf(model)}, beside the stock engine`);
    aded(["bench", "peers", ...common, "--limit", values["peers-limit"], "--json", peersFile(model)], true);
  }
}

function bounds(ci: readonly [number, number] | null | undefined): string {
  return ci ? ` (${ci[0].toFixed(2)} – ${ci[1].toFixed(2)})` : "";
}

function ratio(report: RatioReport | undefined): string {
  return report?.ratio == null ? "" : `${report.ratio.toFixed(2)}${bounds(report.ci)}`;
}

function rounded(value: number | null | undefined): string {
  return value == null ? "" : value.toFixed(0);
}

async function tables(): Promise<string> {
  const ab = [
    "| model | temperature | at once | decode time off / on | whole requests off / on | HumanEval | lowest category of MT-Bench | tokens per step | tokens/s on / off | TTFT p50, ms on / off | same text |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
  ];
  for (const model of MODELS) {
    for (const temperature of SAMPLING) {
      for (const slots of SLOTS) {
        const file = abFile(model, temperature, slots);
        if (!existsSync(file)) continue;
        const report = await readReport(file);
        const { on, off } = report.arms;
        const others = Object.entries(report.categories).filter(([name]) => name !== "humaneval");
        const [lowest] = others.sort(([, x], [, y]) => (x.ratio ?? 0) - (y.ratio ?? 0));
        ab.push(
          `| ${[
            model.type === undefined ? `${model.name} Q4_K_M` : `${model.name} ${model.type}`,
            temperature,
            slots,
            `**${report.overall.ratio?.toFixed(2)}**${bounds(report.overall.ci)}`,
            ratio(report.overall.e2e),
            ratio(report.categories.humaneval),
            lowest === undefined ? "" : `${lowest[0]} ${ratio(lowest[1])}`,
            report.tokens_per_step?.toFixed(2) ?? "",
            `${rounded(on.throughput.tokens_per_s)} / ${rounded(off.throughput.tokens_per_s)}`,
            `${rounded(on.ttft_ms?.p50)} / ${rounded(off.ttft_ms?.p50)}`,
            `${report.same_text} of ${report.n}`,
          ].join(" | ")} |`,
        );
      }
    }
  }
  const peers = [
    "| model | arm | decode time of the plain stock engine / its own | tokens per step | same text as the stock engine |",
    "| --- | --- | --- | --- | --- |",
  ];
  const best: string[] = [];
  for (const model of MODELS) {
    if (!existsSync(peersFile(model))) continue;
    const report = JSON.parse(readFileSync(peersFile(model), "utf8")) as PeersReport;
    const title = model.type === undefined ? `${model.name} Q4_K_M` : `${model.name} ${model.type}`;
    for (const [name, arm] of Object.entries(report.arms)) {
      if (name === report.plain) continue;
      peers.push(
        `| ${title} | ${name} | ${arm.ratio?.toFixed(2)}${bounds(arm.ci)} | ${arm.tokens_per_step?.toFixed(2) ?? ""} | ${arm.same_text} of ${arm.n} |`,
      );
    }
    if (report.aded_to_best)
      best.push(
        `* ${title}: **${report.aded_to_best.ratio?.toFixed(2)}**${bounds(report.aded_to_best.ci)} times ${report.aded_to_best.arm}`,
      );
  }
  return [...ab, "", ...peers, "", ...best, ""].join("\n");
}

if (!values.report) measure();
const text = await tables();
if (values.md !== undefined) writeFileSync(values.md, text);
else process.stdout.write(text);

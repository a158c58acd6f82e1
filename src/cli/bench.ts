/** `aded bench`: measurements against a running server, or against one that is started for it. */
import { Command } from "commander";
import { reportSameText, runSameText } from "../bench/same-text.ts";
import { aaCommand } from "./bench-aa.ts";
import { type AbFlags, abCommand, choosePrompts } from "./bench-ab.ts";
import { compareCommand } from "./bench-compare.ts";
import { draftCommand } from "./bench-draft.ts";
import { peersCommand } from "./bench-peers.ts";
import { proxyCommand } from "./bench-proxy.ts";
import { checkFolder, integer, save } from "./bench-support.ts";
import { targetOptions, withTarget } from "./bench-target.ts";
import { verifyCommand } from "./bench-verify.ts";
import { interruptSignal } from "./interrupt.ts";

export function benchCommand(): Command {
  const bench = new Command("bench").description("measure latency and speed (docs/bench.md)");
  bench.addCommand(abCommand());
  bench.addCommand(compareCommand());
  bench.addCommand(aaCommand());
  targetOptions(
    bench
      .command("same-text")
      .description("whether drafts change the text: every difference, and whether it is a near-tie"),
  )
    .option("--prompts <files...>", "JSONL files, as for bench ab")
    .option("--limit <n>", "most prompts per file, spread evenly over it", integer("--limit", 1))
    .option("--max-tokens <n>", "longest answer, tokens", integer("--max-tokens", 1), 160)
    .option("--concurrency <n>", "requests of one arm at once", integer("--concurrency", 1), 1)
    .option("--json [file]", "write the report as JSON; to stdout without a file")
    .action((flags: SameTextFlags) => benchSameText(flags));
  bench.addCommand(verifyCommand());
  bench.addCommand(draftCommand());
  bench.addCommand(proxyCommand());
  bench.addCommand(peersCommand());
  return bench;
}

type SameTextFlags = Pick<
  AbFlags,
  "url" | "config" | "prompts" | "limit" | "maxTokens" | "concurrency" | "model" | "apiKey" | "json"
>;

async function benchSameText(flags: SameTextFlags): Promise<void> {
  const prompts = await choosePrompts(flags);
  if (typeof flags.json === "string") await checkFolder(flags.json);
  await withTarget(flags, async (url, apiKey, progress) => {
    const task = progress.task("Requests", "steps");
    const pairs = await runSameText(url, {
      prompts,
      maxTokens: flags.maxTokens,
      concurrency: flags.concurrency,
      model: flags.model,
      apiKey,
      signal: interruptSignal,
      onProgress: (done, total) => task.update(done, total),
    });
    task.end("done");
    const report = reportSameText(pairs);
    const text = `${JSON.stringify(report, null, 1)}\n`;
    if (typeof flags.json === "string") await save(flags.json, text);
    if (flags.json === true) {
      process.stdout.write(text);
      return;
    }
    const noise = report.margin_noise;
    process.stdout.write(
      `${report.same_text} of ${report.n} texts are the same; ${report.near_ties} of the ${report.differences.length} first ` +
        `differences are near-ties (margin at most the largest noise seen)\n` +
        `noise of the margin between the two likeliest tokens, nats: p50 ${show(noise.p50)}, p99 ${show(noise.p99)}, ` +
        `max ${show(noise.max)} over ${noise.positions} positions\n` +
        `change of the reported log-probabilities, nats: p50 ${show(report.logprob_noise.p50)}, ` +
        `p99 ${show(report.logprob_noise.p99)}, max ${show(report.logprob_noise.max)}\n` +
        `tokens per step ${show(report.tokens_per_step)}\n`,
    );
    for (const { id, category, index, off, on, margin, near_tie } of report.differences) {
      process.stdout.write(
        `  ${category} ${id}: token ${index}, ${off} against ${on}, margin ${show(margin)}${near_tie ? "" : "  NOT A NEAR-TIE"}\n`,
      );
    }
  });
}

function show(value: number | null): string {
  return value === null ? "N/A" : value.toPrecision(3);
}

/** `aded bench proxy`: what the proxy adds to a request, beside the direct way and nginx. */
import { Command } from "commander";
import { type ProxyReport, runProxyBench, type WayResult } from "../bench/proxy.ts";
import { findProgram } from "../engine/tools.ts";
import { integer } from "./bench-support.ts";
import { interruptSignal } from "./interrupt.ts";
import { printJson, printLine } from "./report.ts";

interface ProxyFlags {
  json?: boolean;
  rounds: number;
  seconds: number;
  connections: number;
  streams: number;
  profile?: string;
}

export function proxyCommand(): Command {
  return new Command("proxy")
    .description(
      "what the proxy adds to a request to an instant origin, beside nginx where that is installed",
    )
    .option("--rounds <n>", "rounds, each way once in each", integer("--rounds", 1), 5)
    .option("--seconds <n>", "measured time of each kind of load in each round", integer("--seconds", 1), 2)
    .option("--connections <n>", "connections for the throughput", integer("--connections", 1), 32)
    .option("--streams <n>", "event streams at once", integer("--streams", 1), 256)
    .option("--profile <folder>", "write a CPU profile of the proxy there")
    .option("--json", "print the report as JSON")
    .addHelpText("after", "\nADED_NGINX names an nginx that is not on the PATH.")
    .action(async ({ json, ...flags }: ProxyFlags) => {
      const nginx = process.env.ADED_NGINX?.trim() || findProgram("nginx");
      const report = await runProxyBench({ ...flags, nginx, signal: interruptSignal });
      if (json) printJson(report);
      else for (const line of table(report)) printLine(line);
    });
}

function table(report: ProxyReport): string[] {
  const row = (
    name: string,
    { ms, requests_per_s, streams, cpu_us_per_event }: WayResult,
    added?: { p50: number; p99: number },
  ): string =>
    [
      name.padEnd(8),
      ms.p50.toFixed(3).padStart(9),
      ms.p99.toFixed(3).padStart(9),
      (added?.p50.toFixed(3) ?? "").padStart(11),
      (added?.p99.toFixed(3) ?? "").padStart(11),
      String(requests_per_s).padStart(12),
      `${streams.complete}/${report.streams}`.padStart(10),
      String(streams.longest_gap_ms).padStart(9),
      (cpu_us_per_event?.one.toFixed(1) ?? "").padStart(10),
      (cpu_us_per_event?.many.toFixed(1) ?? "").padStart(10),
    ].join(" ");
  return [
    "            p50 ms    p99 ms   added p50   added p99   requests/s    streams    gap ms  µs/event   of many",
    row("direct", report.direct),
    row("proxy", report.proxy, report.added_ms),
    ...(report.nginx === undefined ? [] : [row("nginx", report.nginx, report.nginx.added_ms)]),
    `${report.requests_per_cpu_s} requests per second of the proxy's CPU time; ${report.rounds} rounds, ${report.connections} connections for requests/s; µs/event: CPU time for an event that comes alone, and with those of all streams`,
  ];
}

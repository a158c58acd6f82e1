/**
 * Speaks llama-batch-cost's line protocol. Its build is the name of the folder of its libraries: "own" costs 1000 + 100 n µs,
 * "stock" 2000 n µs; the first batch after a pause takes ten times as long. FAKE_LOG names a file that gets every command;
 * FAKE_DO makes it misbehave, as "build command what", e.g. "stock time-8 die".
 */
import { appendFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";

const build = path.basename(
  (process.env.LD_LIBRARY_PATH ?? process.env.DYLD_LIBRARY_PATH ?? "").split(":")[0],
);
const [badBuild, badCommand, what] = (process.env.FAKE_DO ?? "").split(" ");
const log = (text) => appendFileSync(process.env.FAKE_LOG ?? "/dev/null", `${build} ${text}\n`);
const answer = (value) =>
  process.stdout.write(`${typeof value === "string" ? value : JSON.stringify(value)}\n`);

const invariant = process.env.GGML_CPU_BATCH_INVARIANT === "1";
log(`start ${process.argv.slice(2).join(" ")} invariant=${invariant}`);
let depth = 0;

createInterface({ input: process.stdin }).on("line", (line) => {
  log(line);
  const [command, first, second] = line.split(" ");
  const n = Number(first);
  const reps = Number(second);
  if (build === badBuild && badCommand === `${command}-${n}`) {
    if (what === "die") {
      process.stderr.write("out of memory\n", () => process.exit(3));
      return;
    }
    if (what === "hang") return;
    if (what === "refuse") return answer({ error: "llama_decode answered 1" });
    if (what === "mumble") return answer("what?");
    if (what === "differ") return answer('{"n":8,"identical":false,"max_diff":inf}');
  }
  if (command === "depth") {
    depth = n;
    return answer({ depth });
  }
  if (command === "check")
    return answer({ n, identical: invariant || n === 1, max_diff: invariant ? 0 : 0.5 });
  if (command === "info") return answer({ system: "CPU : FAKE = 1" });
  if (command === "memory") return answer({ mib: n, gb_s: Array(reps).fill(10) });
  const cost = build === "own" ? 1000 + 100 * n : 2000 * n;
  answer({ n, us: Array.from({ length: reps }, (_, i) => (i === 0 && reps > 1 ? 10 * cost : cost + i)) });
});

/** `aded eval`: benchmarks of quality whose answers are given with drafts and without, so that they tell the speed-up too. */
import { Command } from "commander";
import { humanEvalCommand } from "./eval-humaneval.ts";
import { mtBenchCommand } from "./eval-mt-bench.ts";

export function evalCommand(): Command {
  return new Command("eval")
    .description("answer MT-Bench and HumanEval, with drafts and without (docs/eval.md)")
    .addCommand(mtBenchCommand())
    .addCommand(humanEvalCommand());
}

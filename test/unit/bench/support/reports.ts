/** What a report of `bench ab` is made from, where its content does not matter. */
import type { AbOptions } from "../../../../src/bench/ab.ts";
import type { BenchEnvironment } from "../../../../src/bench/environment.ts";

export const ENVIRONMENT: BenchEnvironment = {
  date: "2025-01-01T00:00:00.000Z",
  command: "aded bench ab",
  url: "http://127.0.0.1:1",
  cpu: "a CPU",
  cores: 2,
  memory_gib: 8,
  os: "linux",
  node: "v20",
  engine: { build: "b1", model: "toy", quantisation: null, slots: 1, context: 100 },
  aded_status: null,
};

/** Each prompt once in each arm, one at a time, greedily. */
export const OPTIONS: AbOptions = {
  prompts: [],
  maxTokens: 8,
  repeat: 1,
  concurrency: 1,
  seed: 1,
  temperature: 0,
  warmup: 0,
};

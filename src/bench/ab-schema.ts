/** The A/B report as a schema; `npm run schema` writes config/bench-ab.schema.json from it. Times in ms, null: not measured. */
import { z } from "zod";

const nullable = z.number().nullable();
const quantiles = z.looseObject({ p50: z.number(), p95: z.number(), p99: z.number() }).nullable();
const counts = z.looseObject({ drafted: z.number(), accepted: z.number() });

const ratio = z.looseObject({
  ratio: nullable.describe("time of the off-arm / time of the on-arm; above 1: the on-arm is faster"),
  ci: z.tuple([z.number(), z.number()]).nullable().describe("bootstrap interval at the report's level"),
  n: z.int().describe("pairs that count"),
});

const arm = z.looseObject({
  requests: z.int(),
  failed: z.int(),
  tokens: z.int(),
  tok_s: nullable,
  decode_ms: z.number(),
  ttft_ms: quantiles,
  ttfr_ms: quantiles.describe("until the first reasoning text"),
  ttfa_ms: quantiles.describe("until the first text of the answer itself"),
  itl_ms: quantiles,
  itl_chunk_ms: quantiles,
  tpot_ms: quantiles,
  e2e_ms: quantiles,
  draft_n: nullable,
  draft_n_accepted: nullable,
  acceptance: nullable,
  tokens_per_step: nullable,
  arm_header: z.record(z.string(), z.int()),
  throughput: z.looseObject({ requests_per_s: nullable, tokens_per_s: nullable }),
  goodput: z
    .looseObject({
      limits: z.looseObject({}),
      kept: z.int(),
      share: z.number(),
      requests_per_s: nullable,
    })
    .nullable(),
});

const sample = z.looseObject({
  id: z.string(),
  category: z.string(),
  group: z.string().optional(),
  repeat: z.int(),
  arm: z.enum(["on", "off"]),
  first: z.boolean(),
  at_ms: z.number().optional().describe("sent, since the run began"),
  error: z.string().nullable(),
  seed: z.int(),
  arm_header: z.string().nullable(),
  finish_reason: z.string().nullable(),
  text: z.string(),
  clock: z.enum(["engine", "client"]),
  prompt_n: nullable,
  prompt_ms: nullable,
  cache_n: nullable,
  predicted_n: z.int(),
  decode_ms: nullable,
  draft_n: nullable,
  draft_n_accepted: nullable,
  ttft_ms: nullable,
  ttfr_ms: nullable.optional(),
  ttfa_ms: nullable.optional(),
  tpot_ms: nullable,
  e2e_ms: nullable,
  gaps_ms: z.array(z.number()),
  gap_events: z.array(z.int()),
});

export const abReportSchema = z.looseObject({
  overall: ratio.extend({
    e2e: ratio,
    ttft: ratio.optional().describe("of the times to the first token, with its interval"),
    median: ratio.optional().describe("median of the pairs' ratios of decode times, with its interval"),
  }),
  categories: z.record(z.string(), ratio),
  level: z.number(),
  same_text: z.int(),
  same_text_share: nullable,
  n: z.int(),
  tokens_per_step: nullable,
  complete: z.boolean(),
  arm_verified: z.boolean(),
  sequential: z
    .looseObject({
      method: z.string(),
      looks: z.array(z.int()),
      level: z.number(),
      width: z.number(),
      stopped_early: z.boolean(),
    })
    .nullable(),
  noise: z.looseObject({
    verdict: z.enum(["faster", "slower", "same", "cannot tell"]),
    resolve: z.number(),
    half_width: nullable,
    spread: nullable,
    machine: nullable,
    pairs_needed: nullable,
    text: z.string(),
  }),
  drafts: z
    .looseObject({
      by_depth: z.looseObject({ drafted: z.array(z.number()), accepted: z.array(z.number()) }),
      by_source: z.record(z.string(), counts),
      steps: z.number(),
      tokens: z.number(),
      draft_us: z.looseObject({ p50: nullable, p99: nullable }),
      link_us: z.looseObject({ p50: nullable, p99: nullable }),
      late: z.number(),
    })
    .nullable(),
  notes: z.array(z.string()),
  arms: z.looseObject({ on: arm, off: arm }),
  busy_ms: z.looseObject({ on: z.number(), off: z.number() }).nullable(),
  options: z.looseObject({ prompts: z.int() }),
  environment: z.looseObject({
    date: z.string(),
    command: z.string(),
    url: z.string(),
    cpu: z.string(),
    cores: z.int(),
    memory_gib: z.number(),
    os: z.string(),
    node: z.string(),
    engine: z.looseObject({
      build: z.string().nullable(),
      model: z.string().nullable(),
      quantisation: z.string().nullable(),
      slots: nullable,
      context: nullable,
    }),
    aded_status: z.unknown(),
  }),
  differences: z.array(
    z.looseObject({
      id: z.string(),
      category: z.string(),
      repeat: z.int(),
      index: z.int(),
      on: z.string(),
      off: z.string(),
    }),
  ),
  samples: z.array(sample),
});

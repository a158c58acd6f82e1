/** Where and on what a measurement was made. */
import { arch, availableParallelism, cpus, platform, release, totalmem } from "node:os";
import path from "node:path";
import type { ChatClient } from "./chat-client.ts";

export interface EngineDescription {
  build: string | null;
  model: string | null;
  quantisation: string | null;
  slots: number | null;
  /** Tokens per slot. */
  context: number | null;
}

export interface BenchEnvironment {
  /** ISO 8601, when the measurement began. */
  date: string;
  /** The command line, without the program's path. */
  command: string;
  url: string;
  cpu: string;
  /** Logical cores that this process may use. */
  cores: number;
  memory_gib: number;
  os: string;
  node: string;
  /** What the server says of itself in /props; null: it does not say. */
  engine: EngineDescription;
  /** The off-arm's server or model, where it is another one. */
  against?: { url: string; engine: EngineDescription };
  /** /aded/status after the measurement; null when the server has none. */
  aded_status: unknown;
}

type Fields = Record<string, unknown>;

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {};
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

function number(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

/** The model's name without the folder and the ending of its file; null: the server does not say. */
export function modelTitle({ model }: EngineDescription): string | null {
  return model === null ? null : path.basename(model, ".gguf");
}

/** Asks the server what it is. @throws AdedError ADED_ENGINE_UNREACHABLE */
export async function describeEnvironment(
  client: ChatClient,
  {
    command,
    model,
    against,
    signal,
  }: {
    command: string;
    model?: string;
    against?: { client: ChatClient; model?: string };
    signal?: AbortSignal;
  },
): Promise<BenchEnvironment> {
  const processors = cpus();
  const environment: BenchEnvironment = {
    date: new Date().toISOString(),
    command,
    url: client.url,
    cpu: processors[0]?.model.trim() ?? arch(),
    cores: availableParallelism(),
    memory_gib: Math.round((totalmem() / 2 ** 30) * 10) / 10,
    os: `${platform()} ${release()} ${arch()}`,
    node: process.version,
    engine: await describeEngine(client, model, signal),
    aded_status: null,
  };
  if (against !== undefined) {
    const engine = await describeEngine(against.client, against.model, signal);
    environment.against = { url: against.client.url, engine };
  }
  return environment;
}

async function describeEngine(
  client: ChatClient,
  model: string | undefined,
  signal?: AbortSignal,
): Promise<EngineDescription> {
  const query = model === undefined ? "" : `?model=${encodeURIComponent(model)}`;
  const props = fieldsOf(await client.get(`/props${query}`, signal));
  return {
    build: text(props.build_info),
    model: text(props.model_alias) ?? text(props.model_path),
    quantisation: text(props.model_ftype),
    slots: number(props.total_slots),
    context: number(fieldsOf(props.default_generation_settings).n_ctx),
  };
}

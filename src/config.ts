/** Reads the config file: YAML text in, a checked `Config` or an error with line, column and the nearest known key out. */
import { existsSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import path from "node:path";
import { isMap, LineCounter, type Node, type Pair, parseDocument, type Scalar } from "yaml";
import type { z } from "zod";
import { AdedError, messageOf } from "./errors.ts";
import { homePath } from "./home.ts";
import { type Config, configSchema, defaultModel, knownKeys } from "./options.ts";

export interface LoadedConfig extends Config {
  /** Where it was read from; undefined: no file, all defaults. */
  file?: string;
}

export interface ConfigOptions {
  /** Name of the file, for messages; relative paths in it start from its folder. */
  file?: string;
  /** @default process.env */
  env?: NodeJS.ProcessEnv;
}

/**
 * The config of `file`, or else of ADED_CONFIG, or else of aded.yaml under ADED_HOME, or else the defaults.
 * @throws AdedError ADED_CONFIG
 */
export function loadConfig(file?: string, env: NodeJS.ProcessEnv = process.env): LoadedConfig {
  const named = file ?? (env.ADED_CONFIG?.trim() || undefined);
  const chosen = named ?? (existsSync(homePath("aded.yaml")) ? homePath("aded.yaml") : undefined);
  if (chosen === undefined) return parseConfig("", { env });
  const full = path.resolve(chosen);
  let text: string;
  try {
    text = readFileSync(full, "utf8");
  } catch (error) {
    throw new AdedError("ADED_CONFIG", `can't read the config file ${full}: ${messageOf(error)}`, {
      cause: error,
      hint: "check --config or ADED_CONFIG; config/aded.yaml shows every option",
    });
  }
  return parseConfig(text, { file: full, env });
}

/** Checks the text of a config file. @throws AdedError ADED_CONFIG that lists every fault with its place */
export function parseConfig(text: string, options: ConfigOptions = {}): LoadedConfig {
  const { file, env = process.env } = options;
  const name = file ?? "config";
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number | undefined): string => {
    const { line, col } = lines.linePos(offset ?? 0);
    return `${name}:${Math.max(1, line)}:${Math.max(1, col)}`;
  };
  if (document.errors.length > 0) {
    throw configError(document.errors.map((error) => `${at(error.pos[0])}: ${error.message}`));
  }
  const parsed = configSchema.safeParse(withoutNulls(document.toJS()) ?? {});
  if (!parsed.success) {
    throw configError(parsed.error.issues.flatMap((issue) => describe(issue, document.contents, at)));
  }
  const config: LoadedConfig = { ...parsed.data, file };
  if (Object.keys(config.models).length === 0) {
    config.models = configSchema.parse({ models: { [defaultModel.name]: defaultModel.settings } }).models;
  }
  applyEnvironment(config, env);
  checkNames(config, name);
  checkGroups(config, name);
  checkAddress(config);
  return config;
}

/** An option whose value is left empty ("models:" with everything under it commented out) is an option left out. */
function withoutNulls(value: unknown): unknown {
  if (value === null) return undefined;
  if (Array.isArray(value) || typeof value !== "object") return value;
  const entries = Object.entries(value).map(([key, inner]) => [key, withoutNulls(inner)] as const);
  return Object.fromEntries(entries.filter(([, inner]) => inner !== undefined));
}

function configError(faults: readonly string[]): AdedError {
  return new AdedError("ADED_CONFIG", faults.join("\n"), { hint: "config/aded.yaml shows every option" });
}

/** One line per fault: place, option, what is wrong. */
function describe(
  issue: z.core.$ZodIssue,
  root: Node | null,
  at: (offset: number | undefined) => string,
): string[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => {
      const known = knownKeys(issue.path) ?? [];
      const near = nearest(key, known);
      const advice = near ? `; did you mean "${near}"?` : `; known here: ${known.join(", ")}`;
      return `${at(offsetOf(root, [...issue.path, key]))}: unknown option "${key}"${advice}`;
    });
  }
  const option = issue.path.join(".");
  return [`${at(offsetOf(root, issue.path))}: ${option ? `${option}: ` : ""}${issue.message}`];
}

/** Offset of the key at `path` (of the innermost part of the path that the text holds). */
function offsetOf(root: Node | null, path: readonly PropertyKey[]): number | undefined {
  let node: unknown = root;
  let offset = root?.range?.[0];
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => keyText(item) === String(key));
      if (!pair) return offset;
      offset = (pair.key as Scalar).range?.[0] ?? offset;
      node = pair.value;
    } else {
      const items: unknown = (node as { items?: unknown } | null)?.items;
      if (!Array.isArray(items) || typeof key !== "number") return offset;
      node = items[key];
      offset = (node as Node | undefined)?.range?.[0] ?? offset;
    }
  }
  return offset;
}

function keyText(pair: Pair): string {
  return String((pair.key as Scalar | null)?.value ?? pair.key);
}

/** The known name that differs in the fewest letters, if it is near enough to be meant. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.max(2, Math.ceil(name.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate);
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}

function applyEnvironment(config: LoadedConfig, env: NodeJS.ProcessEnv): void {
  const host = env.ADED_HOST?.trim();
  const port = env.ADED_PORT?.trim();
  if (host) config.listen.host = host;
  if (!port) return;
  const number = Number(port);
  if (!Number.isInteger(number) || number < 0 || number > 65535) {
    throw new AdedError("ADED_CONFIG", `ADED_PORT is "${port}", which is no port`, {
      hint: "set it to a number from 0 (any free port) to 65535",
    });
  }
  config.listen.port = number;
}

function checkNames(config: LoadedConfig, file: string): void {
  const owners = new Map<string, string>();
  for (const [name, model] of Object.entries(config.models)) {
    for (const called of [name, ...model.aliases]) {
      const owner = owners.get(called);
      if (owner !== undefined) {
        throw new AdedError("ADED_CONFIG", `${file}: both ${owner} and ${name} are called "${called}"`, {
          hint: "give each model its own names and aliases",
        });
      }
      owners.set(called, name);
    }
  }
}

function checkGroups(config: LoadedConfig, file: string): void {
  const groupOf = new Map<string, string>();
  for (const [group, { members }] of Object.entries(config.groups)) {
    for (const member of members) {
      if (config.models[member] === undefined) {
        const near = nearest(member, Object.keys(config.models));
        throw new AdedError(
          "ADED_CONFIG",
          `${file}: group ${group} has the member "${member}", which is no model`,
          {
            hint: near ? `did you mean "${near}"?` : `models: ${Object.keys(config.models).join(", ")}`,
          },
        );
      }
      const other = groupOf.get(member);
      if (other !== undefined && other !== group) {
        throw new AdedError("ADED_CONFIG", `${file}: ${member} is in the groups ${other} and ${group}`, {
          hint: "a model belongs to one group at most",
        });
      }
      groupOf.set(member, group);
    }
  }
}

function checkAddress(config: LoadedConfig): void {
  const { host } = config.listen;
  if (isLoopback(host) || config.api_keys.length > 0) return;
  throw new AdedError("ADED_CONFIG", `listening on ${host} would let anyone on the network in`, {
    hint: "set api_keys in the config file, or listen on 127.0.0.1",
  });
}

function isLoopback(host: string): boolean {
  const plain = host.replace(/^\[|\]$/g, "").toLowerCase();
  if (plain === "localhost" || plain === "::1") return true;
  return isIP(plain) === 4 && plain.startsWith("127.");
}

/**
 * Turns a llama-swap config into one of ADED. The meaning of each option is that of llama-swap's config.example.yaml
 * (github.com/mostlygeek/llama-swap). What has no counterpart is listed, never dropped in silence.
 */
import { LineCounter, parseDocument, stringify } from "yaml";
import { AdedError } from "../errors.ts";
import { argsFault, splitArgs } from "../options.ts";

export interface LeftOut {
  /** Where it stands, such as models.a.filters.setParams. */
  option: string;
  why: string;
}

export interface Imported {
  /** A config file of ADED. */
  text: string;
  left: LeftOut[];
}

type Table = Record<string, unknown>;

/** Options without a counterpart here, and why that is so. */
const TOP_LEFT: Record<string, string> = {
  logLevel: "set ADED_LOG_LEVEL",
  logTimeFormat: "log lines are JSON with the time in ms",
  logToStdout: "the engine's output is in ADED_HOME/logs and under /aded/models/NAME/logs",
  metricsMaxInMemory: "figures are counters under /aded/metrics",
  captureBuffer: "requests are not recorded",
  ui: "the dashboard is under /aded/",
  performance: "figures are under /aded/metrics",
  store: "activity is not recorded",
  includeAliasesInList: "aliases stand beside each model in /v1/models",
  upstream: "there is no /upstream route: ?model= names the model for any route",
  profiles: "give the model an alias",
  selectors: "give the model an alias",
  unloadTimeout: "an engine has 5 s to end after its last answer",
};
const MODEL_LEFT: Record<string, string> = {
  checkEndpoint: "llama-server is asked at /health",
  unloadTimeout: "an engine has 5 s to end after its last answer",
  compat: "a tunnel counts as a running request",
  useModelName: "the request goes on byte for byte",
  filters: "the request goes on byte for byte; give the engine its defaults as arguments",
  metadata: "it is not shown in /v1/models",
  capabilities: "they are not shown in /v1/models",
  sendLoadingState: "a client asks for it with x-aded-progress: 1",
  timeouts: "limits.engine_timeout_seconds holds for all models",
  name: "the model's key is its name",
  description: "it is not shown in /v1/models",
  cmdStop: "the engine is a child process and ended as one",
};
const KNOWN = [
  "macros",
  "models",
  "groups",
  "routing",
  "matrix",
  "hooks",
  "peers",
  "apiKeys",
  "healthCheckTimeout",
  "startPort",
  "globalTTL",
  "sendLoadingState",
];
const MODEL_KNOWN = ["macros", "cmd", "proxy", "env", "ttl", "aliases", "concurrencyLimit", "unlisted"];

export function importLlamaSwap(
  text: string,
  options: { file?: string; env?: NodeJS.ProcessEnv } = {},
): Imported {
  const { file = "config.yaml", env = process.env } = options;
  return new Import(parse(text, file), env).run(file);
}

function parse(text: string, file: string): Table {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [error] = document.errors;
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    throw new AdedError("ADED_IMPORT", `${file}:${line}:${col}: ${error.message}`, {
      hint: "mend the YAML first",
    });
  }
  const value: unknown = document.toJS();
  if (isTable(value) && isTable(value.models)) return value;
  throw new AdedError("ADED_IMPORT", `${file} has no models`, { hint: "name a config file of llama-swap" });
}

class Import {
  readonly #source: Table;
  readonly #env: NodeJS.ProcessEnv;
  readonly #left: LeftOut[] = [];
  readonly #models: Table = {};

  constructor(source: Table, env: NodeJS.ProcessEnv) {
    this.#source = source;
    this.#env = env;
  }

  run(file: string): Imported {
    const source = this.#source;
    for (const key of Object.keys(source)) {
      if (key in TOP_LEFT) this.#leave(key, TOP_LEFT[key]);
      else if (!KNOWN.includes(key)) this.#leave(key, "it is not known here");
    }
    if (source.sendLoadingState === true) this.#leave("sendLoadingState", MODEL_LEFT.sendLoadingState);
    for (const [name, model] of Object.entries(source.models as Table)) this.#model(name, table(model));
    this.#peers();
    if (Object.keys(this.#models).length === 0) {
      const why = this.#left.map(({ option, why: reason }) => `${option}: ${reason}`).join("\n");
      throw new AdedError("ADED_IMPORT", `no model of ${file} could be carried over:\n${why}`, {
        hint: "models of llama-server can be, and engines at an address",
      });
    }
    this.#preload();
    const keys = list(source.apiKeys).map((key) => this.#expand(String(key), {}, "apiKeys"));
    const swap: Table = {};
    if (Number(source.globalTTL) > 0) swap.ttl = Number(source.globalTTL);
    if (source.healthCheckTimeout !== undefined)
      swap.start_seconds = Math.max(15, Number(source.healthCheckTimeout));
    const groups = this.#groups();
    const config: Table = {
      ...(keys.length > 0 && { api_keys: keys }),
      ...(Object.keys(swap).length > 0 && { swap }),
      ...(Object.keys(groups).length > 0 && { groups }),
      models: this.#models,
    };
    const left = this.#left.map(({ option, why }) => `#   ${option}: ${why}`);
    const head = [`# Made from ${file} by aded config import.`];
    if (left.length > 0) head.push("# Not carried over:", ...left);
    return {
      text: `${head.join("\n").replace(/\n(?!#)/g, " ")}\n${stringify(config, { lineWidth: 0 })}`,
      left: this.#left,
    };
  }

  #leave(option: string, why: string): void {
    this.#left.push({ option, why });
  }

  #model(name: string, model: Table): void {
    const at = `models.${name}`;
    for (const key of Object.keys(model)) {
      if (key in MODEL_LEFT) this.#leave(`${at}.${key}`, MODEL_LEFT[key]);
      else if (!MODEL_KNOWN.includes(key)) this.#leave(`${at}.${key}`, "it is not known here");
    }
    const macros = { ...table(this.#source.macros), ...table(model.macros), MODEL_ID: name };
    const made = this.#command(
      at,
      this.#expand(withoutComments(String(model.cmd ?? "")), macros, `${at}.cmd`),
    );
    if (made === undefined) return;
    const env = Object.fromEntries(
      list(model.env).map((line) => {
        const [key, value] = this.#expand(String(line), macros, `${at}.env`).split(/=(.*)/s);
        return [key, value ?? ""];
      }),
    );
    const ttl = Number(model.ttl ?? -1);
    const limit = Number(model.concurrencyLimit ?? 0);
    this.#models[name] = {
      ...made,
      ...(Object.keys(env).length > 0 && { env }),
      ...(list(model.aliases).length > 0 && { aliases: list(model.aliases).map(String) }),
      ...(ttl >= 0 && { ttl }),
      ...(limit > 0 && { max_running: limit }),
      ...(model.unlisted === true && { hidden: true }),
    };
  }

  /** Source and arguments from a command line of llama-server; undefined: it is another program. */
  #command(at: string, command: string): Table | undefined {
    const [program = "", ...words] = splitArgs(withoutComments(command).replace(/\\\s/g, " "));
    if (!/llama-server/.test(program.split("/").at(-1) ?? "")) {
      this.#leave(
        at,
        `its command is ${program || "missing"}, not llama-server: start it yourself and name its address as engine`,
      );
      return undefined;
    }
    const args: string[] = [];
    const hub: Record<"repository" | "file", string | undefined> = { repository: undefined, file: undefined };
    let source: string | undefined;
    for (let i = 0; i < words.length; i++) {
      const [flag, inline] = words[i].split(/=(.*)/s);
      const value = (): string => inline ?? words[++i] ?? "";
      if (flag === "-m" || flag === "--model") source = `file:${value()}`;
      else if (flag === "-hf" || flag === "-hfr" || flag === "--hf-repo") hub.repository = value();
      else if (flag === "-hff" || flag === "--hf-file") hub.file = value();
      else if (flag === "--port" || flag === "--host") value();
      else if (argsFault(flag) !== undefined)
        this.#leave(`${at}.cmd ${flag}`, argsFault(flag) ?? String(value()));
      else args.push(words[i]);
    }
    if (hub.repository !== undefined) {
      source = hub.file === undefined ? `hf:${hub.repository}` : `hf:${hub.repository}/${hub.file}`;
    }
    if (source === undefined) {
      this.#leave(at, "its command names no model file (-m or -hf)");
      return undefined;
    }
    return { source, args };
  }

  /** Puts in macros, `${env.NAME}` and the model's name. */
  #expand(text: string, macros: Table, at: string): string {
    let result = text;
    // a macro may hold others; a circle ends here
    for (let round = 0; round < 10 && result.includes("${"); round++) {
      const before = result;
      result = result.replace(/\$\{([\w.-]+)\}/g, (all: string, name: string) => {
        if (name === "PORT") return "0";
        if (name.startsWith("env.")) return this.#env[name.slice(4)] ?? all;
        return name in macros ? String(macros[name]) : all;
      });
      if (result === before) break;
    }
    for (const [, name] of result.matchAll(/\$\{([\w.-]+)\}/g)) this.#leave(at, `\${${name}} has no value`);
    return result;
  }

  #peers(): void {
    for (const [id, each] of Object.entries(table(this.#source.peers))) {
      const peer = table(each);
      const url = String(peer.proxy ?? "");
      const bare = /^https?:\/\/[^/]+\/?$/.test(url);
      for (const key of ["filters", "timeouts"]) {
        if (peer[key] !== undefined) this.#leave(`peers.${id}.${key}`, MODEL_LEFT[key]);
      }
      if (!bare || peer.apiKey !== undefined) {
        const why = bare ? "a key of its own is not sent along" : `its address ${url} has a path`;
        this.#leave(`peers.${id}`, why);
        continue;
      }
      for (const model of list(peer.models).map(String)) {
        const name = model in this.#models ? `${id}/${model}` : model;
        this.#models[name] = { engine: url.replace(/\/$/, "") };
      }
    }
  }

  #preload(): void {
    const hooks = table(table(this.#source.hooks).on_startup);
    const names = list(hooks.preload).map(String);
    for (const name of names) {
      const model = this.#models[name];
      if (isTable(model)) model.preload = true;
      else this.#leave(`hooks.on_startup.preload ${name}`, "there is no such model");
    }
    // llama-swap starts nothing unasked
    if (names.length === 0)
      for (const model of Object.values(this.#models))
        if (isTable(model) && "source" in model) model.preload = false;
  }

  #groups(): Table {
    const routing = table(this.#source.routing);
    const settings = table(table(routing.router).settings);
    if (table(routing.router).use === "matrix" || this.#source.matrix !== undefined) {
      this.#leave("routing.router.settings.matrix", "write the combinations as groups");
    }
    const { fifo } = table(table(routing.scheduler).settings);
    if (table(fifo).priority !== undefined) {
      this.#leave("routing.scheduler.settings.fifo.priority", "requests go in the order in which they came");
    }
    const groups: Table = {};
    for (const [name, each] of Object.entries({ ...table(this.#source.groups), ...table(settings.groups) })) {
      const group = table(each);
      const members = list(group.members).map(String);
      const known = members.filter((member) => member in this.#models);
      for (const member of members) {
        if (!known.includes(member))
          this.#leave(`groups.${name}.members ${member}`, "there is no such model");
      }
      if (known.length === 0) continue;
      groups[name] = {
        members: known,
        swap: group.swap !== false,
        exclusive: group.exclusive !== false,
        persistent: group.persistent === true,
      };
    }
    return groups;
  }
}

/** Comments go before macros are put in: one that a comment names may have several lines. */
function withoutComments(command: string): string {
  const lines = command.split("\n").filter((line) => !line.trim().startsWith("#"));
  return lines.join(" ");
}

function isTable(value: unknown): value is Table {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function table(value: unknown): Table {
  return isTable(value) ? value : {};
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

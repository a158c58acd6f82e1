/**
 * Tries, feature by feature, what docs/models.md's table says of ADED, llama-swap and llama-server's router mode: each is started with a config
 * that asks for the feature, and what it then does is printed, one Markdown row per feature. Nothing is taken from documentation. Exit status 1: one could not be
 * tried.
 *
 *     npx tsx scripts/swap-features.ts --llama-server FILE --llama-swap FILE --a FILE.gguf --b FILE.gguf [--only NAME]
 *
 * FILE: a stock llama-server (`npx aded engine build --stock`), llama-swap's program, and two model files, a and b.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { freePort } from "../src/bench/proxy/free-port.ts";
import { Endpoint } from "../test/e2e/support/endpoint.ts";

const { values } = parseArgs({
  options: {
    "llama-server": { type: "string" },
    "llama-swap": { type: "string" },
    a: { type: "string" },
    b: { type: "string" },
    only: { type: "string" },
  },
});

function needed(name: "llama-server" | "llama-swap" | "a" | "b"): string {
  const value = values[name];
  if (value === undefined) throw new Error(`--${name} FILE is missing`);
  return path.resolve(value);
}

const LLAMA_SERVER = needed("llama-server");
const LLAMA_SWAP = needed("llama-swap");
const FILES: Record<string, string> = { a: needed("a"), b: needed("b") };
const START_MS = 60_000;
const PROMPT = "Once upon a time";

/** A server under test that runs. */
class Running {
  readonly http: Endpoint;
  #log = "";

  readonly child: ChildProcess;
  readonly listLoaded: (http: Endpoint) => Promise<string[]>;
  readonly file: string;

  constructor(child: ChildProcess, url: string, listLoaded: Running["listLoaded"], file: string) {
    this.child = child;
    this.listLoaded = listLoaded;
    this.file = file;
    this.http = new Endpoint(url);
    for (const stream of [child.stdout, child.stderr])
      stream?.on("data", (part) => {
        this.#log += part;
      });
  }

  get log(): string {
    return this.#log;
  }

  loaded(): Promise<string[]> {
    return this.listLoaded(this.http);
  }

  /** A completion: its status and JSON (text where it is none), and how long it took, ms. */
  async complete(model: string, more: Record<string, unknown> = {}) {
    const began = performance.now();
    const body = JSON.stringify({ model, prompt: PROMPT, max_tokens: 4, temperature: 0, ...more });
    const answer = await this.http.send("POST", "/v1/completions", {
      body,
      headers: { "content-type": "application/json" },
    });
    return {
      status: answer.status,
      headers: answer.headers,
      text: answer.body.toString(),
      ms: performance.now() - began,
    };
  }

  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const gone = once(this.child, "exit");
      this.child.kill("SIGTERM");
      const hurry = setTimeout(() => this.child.kill("SIGKILL"), 15_000);
      await gone;
      clearTimeout(hurry);
    }
  }
}

/** What a server is told: models by name with llama-server's arguments, and lines of its own config. */
interface Setup {
  models?: Record<string, { args?: string; lines?: string[] }>;
  /** lines of its config beside the models (ADED, llama-swap), or arguments (router mode) */
  more?: string[];
}

type Name = "aded" | "llama-swap" | "router";

const folder = mkdtempSync(path.join(tmpdir(), "aded-features-"));
let configs = 0;

function modelFile(name: string): string {
  return FILES[name] ?? FILES.a;
}

/** The config's text; `port` is where the server is to listen. */
function configText(name: Name, { models = { a: {}, b: {} }, more = [] }: Setup, port: number): string {
  const entries = Object.entries(models);
  const common = "-c 512 -np 2 -t 1";
  if (name === "aded") {
    const texts = entries.map(([id, { args = "", lines = [] }]) =>
      [
        `  ${id}:`,
        `    source: "file:${modelFile(id)}"`,
        `    args: ${common} ${args}`,
        ...lines.map((l) => `    ${l}`),
      ].join("\n"),
    );
    return [`listen: {port: ${port}}`, ...more, "models:", ...texts, ""].join("\n");
  }
  if (name === "llama-swap") {
    const texts = entries.map(([id, { args = "", lines = [] }]) =>
      [
        `  ${id}:`,
        // biome-ignore lint/suspicious/noTemplateCurlyInString: llama-swap's own macro
        `    cmd: ${LLAMA_SERVER} --port ${"${PORT}"} -m ${modelFile(id)} ${common} ${args}`,
        ...lines.map((l) => `    ${l}`),
      ].join("\n"),
    );
    return ["startPort: 21000", ...more, "models:", ...texts, ""].join("\n");
  }
  const texts = entries.map(([id, { args = "", lines = [] }]) => {
    const own = args.match(/-\S+( [^-]\S*)?/g) ?? [];
    const pairs = own.map((pair) => pair.replace(/^-+/, "").replace(" ", " = "));
    return [`[${id}]`, `model = ${modelFile(id)}`, "np = 2", "t = 1", "c = 512", ...pairs, ...lines].join(
      "\n",
    );
  });
  return ["version = 1", ...texts, ""].join("\n");
}

async function start(name: Name, setup: Setup): Promise<Running> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const file = path.join(folder, `${name}-${configs++}.${name === "router" ? "ini" : "yaml"}`);
  writeFileSync(file, configText(name, setup, port));
  const [program, args] = {
    aded: [process.execPath, ["bin/aded.js", "serve", "--config", file]] as const,
    "llama-swap": [LLAMA_SWAP, ["-config", file, "-watch-config", "-listen", `127.0.0.1:${port}`]] as const,
    router: [
      LLAMA_SERVER,
      ["--port", String(port), "--models-preset", file, ...(setup.more ?? ["--models-max", "1"])],
    ] as const,
  }[name];
  const child = spawn(program, [...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LLAMA_CACHE: folder },
  });
  const running = new Running(child, url, LISTS[name], file);
  const until = Date.now() + START_MS;
  for (;;) {
    const answers = await running.http.send("GET", "/v1/models").then(
      (answer) => answer.status === 200,
      () => false,
    );
    if (answers) return running;
    if (child.exitCode !== null || Date.now() > until)
      throw new Error(`does not start: ${running.log.trim().split("\n").at(-1)}`);
    await delay(100);
  }
}

interface Listed {
  data: { id: string; status?: { value: string } }[];
}

async function listed(http: Endpoint): Promise<string[]> {
  const { data } = await http.get<Listed>("/v1/models");
  return data.filter(({ status }) => status?.value === "loaded").map(({ id }) => id);
}

const LISTS: Record<Name, (http: Endpoint) => Promise<string[]>> = {
  aded: listed,
  router: listed,
  "llama-swap": async (http) => {
    const { running } = await http.get<{ running: { model: string; state: string }[] }>("/running");
    return running.filter(({ state }) => state === "ready").map(({ model }) => model);
  },
};

async function untilTrue(holds: () => Promise<boolean>, ms: number): Promise<boolean> {
  const until = Date.now() + ms;
  while (Date.now() < until) {
    if (await holds()) return true;
    await delay(100);
  }
  return false;
}

interface Feature {
  name: string;
  /** how each is asked for it; a text: it has no such option */
  setups: Record<Name, Setup | string>;
  /** what it does, in a few words */
  observe(running: Running, name: Name): Promise<string>;
}

const BOTH: Record<Name, Setup> = { aded: {}, "llama-swap": {}, router: {} };
/** a and b may run at the same time */
const TOGETHER: Record<Name, Setup> = {
  aded: { more: ["groups: {g: {members: [a, b], swap: false}}"] },
  "llama-swap": {
    more: ["routing: {router: {use: group, settings: {groups: {g: {swap: false, members: [a, b]}}}}}"],
  },
  router: { more: ["--models-max", "2"] },
};
const many = <T>(n: number, make: (i: number) => Promise<T>) =>
  Promise.all(Array.from({ length: n }, (_, i) => make(i)));

/** "3 × 200, 1 × 429" */
function statuses(answers: readonly { status: number }[]): string {
  const counts = new Map<number, number>();
  for (const { status } of answers) counts.set(status, (counts.get(status) ?? 0) + 1);
  return [...counts].map(([status, n]) => `${n} × ${status}`).join(", ");
}

const FEATURES: Feature[] = [
  {
    name: "models by the request's `model`, on demand",
    setups: BOTH,
    async observe(running) {
      const first = await running.complete("a");
      const second = await running.complete("b");
      return `statuses ${first.status}, ${second.status}; loaded then: ${await running.loaded()}`;
    },
  },
  {
    name: "drafts without a draft model",
    setups: {
      aded: {},
      "llama-swap": {},
      router: { models: { a: { args: "--spec-type ngram-mod" } } },
    },
    async observe(running, name) {
      const { text } = await running.complete("a", {
        prompt: `${"one two three four five six seven eight. ".repeat(8)}`,
        max_tokens: 96,
      });
      const { timings } = JSON.parse(text) as { timings?: { draft_n?: number; draft_n_accepted?: number } };
      const how = name === "router" ? " (--spec-type ngram-mod)" : "";
      return timings?.draft_n
        ? `yes${how}: ${timings.draft_n} drafted, ${timings.draft_n_accepted} accepted`
        : `none${how}`;
    },
  },
  {
    name: "groups: members that stay together",
    setups: TOGETHER,
    async observe(running) {
      await running.complete("a");
      await running.complete("b");
      return `loaded: ${(await running.loaded()).sort()}`;
    },
  },
  {
    name: "sets of models (matrix)",
    setups: {
      aded: "no option",
      "llama-swap": {
        more: ['routing: {router: {use: matrix, settings: {matrix: {sets: {both: "a & b"}}}}}'],
      },
      router: "no option",
    },
    async observe(running) {
      await running.complete("a");
      await running.complete("b");
      return `loaded: ${(await running.loaded()).sort()}`;
    },
  },
  {
    name: "ttl of 2 s",
    setups: {
      aded: { more: ["swap: {ttl: 2}"] },
      "llama-swap": { more: ["globalTTL: 2"] },
      router: { more: ["--models-max", "2", "--sleep-idle-seconds", "2"] },
    },
    async observe(running) {
      await running.complete("a");
      const gone = await untilTrue(async () => (await running.loaded()).length === 0, 12_000);
      const { data } = await running.http.get<Listed>("/v1/models");
      const state = data.find(({ id }) => id === "a")?.status?.value;
      return gone ? `unloaded${state === undefined ? "" : ` (state "${state}")`}` : "still loaded after 12 s";
    },
  },
  {
    name: "pinned models",
    setups: {
      aded: { models: { a: { lines: ["pinned: true"] }, b: {}, c: {} } },
      "llama-swap": {
        models: { a: {}, b: {}, c: {} },
        more: [
          "routing: {router: {use: group, settings: {groups: {forever: {persistent: true, swap: false, exclusive: false, members: [a]}, rest: {swap: true, exclusive: true, members: [b, c]}}}}}",
        ],
      },
      router: "no option",
    },
    async observe(running) {
      for (const model of ["a", "b", "c"]) await running.complete(model);
      return `asked for a, b, c; loaded: ${(await running.loaded()).sort()}`;
    },
  },
  {
    name: "preload",
    setups: {
      aded: { models: { a: {}, b: { lines: ["preload: true"] } } },
      "llama-swap": { more: ["hooks: {on_startup: {preload: [b]}}"] },
      router: { models: { a: {}, b: { lines: ["load-on-startup = true"] } } },
    },
    async observe(running) {
      const there = await untilTrue(async () => (await running.loaded()).includes("b"), 20_000);
      return there ? "loaded without a request" : "not loaded";
    },
  },
  {
    name: "40 requests for a model that is not loaded",
    setups: { aded: { more: ["swap: {queue_max: 16}"] }, "llama-swap": {}, router: {} },
    async observe(running) {
      await running.complete("b");
      const answers = await many(40, () => running.complete("a", { max_tokens: 1 }));
      const retry = answers.some(({ status, headers }) => status !== 200 && headers["retry-after"]);
      return `${statuses(answers)}${retry ? ", with Retry-After" : ""}`;
    },
  },
  {
    name: "a waiting model that others keep busy",
    setups: BOTH,
    async observe(running) {
      await running.complete("a");
      let over = false;
      const busy = many(2, async () => {
        while (!over) await running.complete("a", { max_tokens: 32 });
      });
      const answer = await Promise.race([
        running.complete("b"),
        delay(20_000).then(() => ({ status: 0, ms: 20_000 })),
      ]);
      over = true;
      await busy;
      return answer.status === 0
        ? "not served within 20 s"
        : `status ${answer.status} after ${(answer.ms / 1000).toFixed(1)} s`;
    },
  },
  {
    name: "one request at a time, four sent",
    setups: {
      aded: { models: { a: { lines: ["max_running: 1"] } } },
      "llama-swap": { models: { a: { lines: ["concurrencyLimit: 1"] } } },
      router: { models: { a: { args: "-np 1" } } },
    },
    async observe(running) {
      await running.complete("a");
      return statuses(await many(4, () => running.complete("a", { max_tokens: 24 })));
    },
  },
  {
    name: "a swap while a stream runs",
    setups: BOTH,
    async observe(running) {
      await running.complete("a");
      const asked = 200;
      const stream = await running.http.stream(
        "/v1/completions",
        { model: "a", prompt: PROMPT, max_tokens: asked, temperature: 0, stream: true, ignore_eos: true },
        { "content-type": "application/json" },
      );
      let events = 0;
      let done = false;
      const reading = (async () => {
        for await (const { value } of stream.events) {
          if (value === "[DONE]") done = true;
          else events++;
        }
      })().then(
        () => "",
        () => "broken off, ",
      );
      await untilTrue(async () => events > 5, 20_000);
      const other = await running.complete("b");
      const broken = await reading;
      return `${broken}${events} events, ${done ? "ended with [DONE]" : "no [DONE]"}; the other request: ${other.status}`;
    },
  },
  {
    name: "progress while loading",
    setups: { aded: {}, "llama-swap": { more: ["sendLoadingState: true"] }, router: {} },
    async observe(running) {
      await running.complete("b");
      const body = {
        model: "a",
        messages: [{ role: "user", content: "Hi" }],
        max_tokens: 4,
        stream: true,
      };
      const answer = await running.http.send("POST", "/v1/chat/completions", {
        body: JSON.stringify(body),
        headers: { "content-type": "application/json", "x-aded-progress": "1" },
      });
      const text = answer.body.toString();
      if (/^: aded .*/m.test(text)) return `comments: \`${/^: aded .*/m.exec(text)?.[0]}\``;
      if (text.includes("reasoning_content")) return "text in `reasoning_content`";
      return "none";
    },
  },
  {
    name: "a model that does not fit into memory",
    setups: {
      aded: { models: { a: {}, b: { args: "-c 500000000" } } },
      "llama-swap": { models: { a: {}, b: { args: "-c 500000000" } }, more: ["healthCheckTimeout: 60"] },
      router: { models: { a: {}, b: { args: "-c 500000000" } } },
    },
    async observe(running) {
      await running.complete("a");
      const { status, text, ms } = await running.complete("b");
      return `status ${status} after ${(ms / 1000).toFixed(1)} s: ${text.trim().slice(0, 240)}`;
    },
  },
  {
    name: "a model that fails to start, asked for five times",
    setups: {
      aded: { models: { a: {}, b: { args: "--no-such-flag" } } },
      "llama-swap": { models: { a: {}, b: { args: "--no-such-flag" } } },
      router: { models: { a: {}, b: { args: "--override-kv nothing" } } },
    },
    async observe(running) {
      const answers = [];
      for (let i = 0; i < 5; i++) answers.push(await running.complete("b", { max_tokens: 1 }));
      const [first] = answers;
      return `${statuses(answers)}; ${answers.map(({ ms }) => `${(ms / 1000).toFixed(2)} s`).join(", ")}; first: ${first.text.trim().slice(0, 160)}`;
    },
  },
  {
    name: "config changed while serving: b's arguments",
    setups: TOGETHER,
    async observe(running, name) {
      await running.complete("a");
      await running.complete("b");
      const contextOfB = async (): Promise<string | undefined> => {
        const target = name === "llama-swap" ? "/upstream/b/props" : "/props?model=b";
        return /"n_ctx":\s*(\d+)/.exec((await running.http.send("GET", target)).body.toString())?.[1];
      };
      const before = await contextOfB();
      const old = readFileSync(running.file, "utf8");
      const at = old.indexOf(name === "router" ? "[b]" : "  b:");
      writeFileSync(
        running.file,
        old.slice(0, at) + old.slice(at).replace(/-c 512|c = 512/, (c) => c.replace("512", "1024")),
      );
      if (name === "router") await running.http.send("GET", "/models?reload=1");
      await delay(4000);
      const after = (await running.loaded()).sort();
      await running.complete("b");
      return `4 s later loaded: ${after.length === 0 ? "none" : after}; context per slot of b: ${before}, then ${await contextOfB()}`;
    },
  },
  {
    name: "request rewriting",
    setups: {
      aded: "no option",
      "llama-swap": { models: { a: { lines: ["filters: {setParams: {max_tokens: 2}}"] } } },
      router: "no option",
    },
    async observe(running) {
      const { text } = await running.complete("a", { max_tokens: 9 });
      return `asked for 9 tokens, told to make 2: ${/"completion_tokens":\s*(\d+)/.exec(text)?.[1]}`;
    },
  },
  {
    name: "other names for a model",
    setups: {
      aded: { models: { a: { lines: ["aliases: [other]"] } } },
      "llama-swap": { models: { a: { lines: ["aliases: [other]"] } } },
      router: { models: { a: { lines: ["alias = other"] } } },
    },
    async observe(running) {
      return `status ${(await running.complete("other")).status}`;
    },
  },
  {
    name: "Prometheus metrics by model",
    setups: {
      aded: {},
      "llama-swap": {},
      router: { more: ["--models-max", "1", "--metrics"] },
    },
    async observe(running, name) {
      await running.complete("a");
      const target = { aded: "/aded/metrics", "llama-swap": "/metrics", router: "/metrics?model=a" }[name];
      const { status, body } = await running.http.send("GET", target);
      const lines = body
        .toString()
        .split("\n")
        .filter((line) => line !== "" && !line.startsWith("#"));
      const labelled = lines.filter((line) => /model="/.test(line)).length;
      return `\`${target}\`: status ${status}, ${lines.length} series, ${labelled} with a model label`;
    },
  },
];

async function row(feature: Feature): Promise<string> {
  const cells: string[] = [];
  for (const name of ["aded", "llama-swap", "router"] as const) {
    const setup = feature.setups[name];
    if (typeof setup === "string") {
      cells.push(setup);
      continue;
    }
    try {
      const running = await start(name, setup);
      try {
        cells.push(await feature.observe(running, name));
      } finally {
        await running.stop();
      }
    } catch (error) {
      cells.push(`failed: ${(error as Error).message}`);
      process.exitCode = 1;
    }
  }
  return `| ${[feature.name, ...cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("\n", " "))].join(" | ")} |`;
}

try {
  console.log("| feature | ADED | llama-swap | llama-server router mode |\n| --- | --- | --- | --- |");
  for (const feature of FEATURES)
    if (!values.only || feature.name.includes(values.only)) console.log(await row(feature));
} finally {
  rmSync(folder, { recursive: true, force: true });
}

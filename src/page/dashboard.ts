/** The dashboard's page: asks the server once a second, and shows what it says. Text goes in as text, never as HTML. */
import { type Curve, type Plot, plot } from "./plots.ts";

interface Quantiles {
  p50: number | null;
  p99: number | null;
}

interface Counts {
  drafted: number;
  accepted: number;
}

interface Ab {
  share: number;
  arms: Record<"on" | "off", { requests: number; ms_per_token: number | null }>;
  ratio: number | null;
  ci: [number, number] | null;
}

interface Model {
  state: string;
  kind: string | null;
  reason?: string;
  link: string;
  tree: boolean | null;
  steps: number;
  tokens: number;
  tokens_per_step: number | null;
  draft_us: Quantiles;
  link_us: Quantiles;
  exchange_us: Quantiles;
  cost_us: Record<string, number>;
  matrix: { rows: number; bytes: number; limit: number } | null;
  controller: { asleep: number; nodes: number } | null;
  acceptance?: { by_depth: { drafted: number[]; accepted: number[] }; by_source: Record<string, Counts> };
  ab?: Ab;
  requests?: { running: number; waiting: number };
}

interface Status {
  version: string;
  uptime_s: number;
  running: number;
  arms: { on: number; off: number };
  models: Record<string, Model>;
}

interface ShownStep {
  id: number;
  nodes: { text: string; parent: number; accepted: boolean }[];
  next: string;
  us: number;
}

const EVERY_MS = 1000;
const WINDOW = 300;
const MOST_STEPS = 400;
const MOST_LINES = 500;

let key = sessionStorage.getItem("aded-key") ?? "";
let status: Status | undefined;
let chosen = "";
let swaps = false;
const history = new Map<
  string,
  { at: number[]; rate: (number | null)[]; nodes: number[]; steps: number; tokens: number }
>();

type Child = Node | string;

function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function panel(title: string, ...children: Child[]): HTMLElement {
  return h("section", {}, h("h2", {}, title), ...children);
}

function headers(): Record<string, string> {
  return key === "" ? {} : { authorization: `Bearer ${key}` };
}

async function get<T>(path: string): Promise<T | undefined> {
  const response = await fetch(path, { headers: headers(), cache: "no-store" });
  if (response.status === 401) {
    keyForm.hidden = false;
    return undefined;
  }
  keyForm.hidden = true;
  return response.ok ? ((await response.json()) as T) : undefined;
}

// --- what stands on the page

const keyInput = h("input", { id: "key", type: "password", autocomplete: "off" });
const keyForm = h(
  "form",
  { class: "panel" },
  h("label", { for: "key" }, "API key: "),
  keyInput,
  " ",
  h("button", { type: "submit" }, "Use it"),
  h("p", { class: "soft" }, "It stays in this tab."),
);
keyForm.hidden = true;

const modelTable = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Models" });
const modelNote = h("p", { role: "status" });
const picker = h("select", { id: "model" });
const speed = h("p", { class: "big" }, "–");
const speedNote = h("p", { class: "soft" });
const rateHost = h("div");
const depthHost = h("div");
const costHost = h("div");
const sourceTable = h("div", {
  class: "scroll",
  tabindex: "0",
  role: "group",
  "aria-label": "Acceptance by source",
});
const timesTable = h("div", {
  class: "scroll",
  tabindex: "0",
  role: "group",
  "aria-label": "Times and sizes",
});
const abText = h("div");
const logLines = h("pre", { tabindex: "0", "aria-label": "Last lines of the log", class: "log" });
const prompt = h(
  "textarea",
  { id: "prompt", rows: "3" },
  "Write a Python function that lists all primes below n.",
);
const withDrafts = h("input", { id: "drafts", type: "checkbox", checked: "" });
const go = h("button", { type: "submit" }, "Try it");
const answer = h("p", { id: "answer", class: "answer", "aria-live": "polite" });
const tryNote = h("p", { class: "soft", role: "status" });
const trees = h("ol", { class: "trees", tabindex: "0", "aria-label": "Draft trees, one per step" });
const tryForm = h(
  "form",
  {},
  h("p", {}, h("label", { for: "prompt" }, "Prompt")),
  prompt,
  h("p", {}, withDrafts, " ", h("label", { for: "drafts" }, "with drafts"), " ", go),
);

document
  .getElementById("main")
  ?.append(
    keyForm,
    panel("Models", modelTable, modelNote),
    h("p", {}, h("label", { for: "model" }, "Figures of "), picker),
    h(
      "div",
      { class: "grid" },
      panel("Tokens per step", speed, speedNote, rateHost),
      panel("Live A/B", abText),
      panel("Acceptance by depth", depthHost),
      panel("Acceptance by source", sourceTable),
      panel("Nodes drafted and what a step costs", costHost),
      panel("Times and sizes", timesTable),
    ),
    panel(
      "Try it",
      tryForm,
      answer,
      tryNote,
      h(
        "p",
        { class: "soft" },
        "Each line is one step: the draft tree that was verified. ",
        h("span", { class: "kept" }, "Accepted"),
        " tokens are underlined, the model's own token follows the arrow.",
      ),
      trees,
    ),
    panel("Log", logLines),
  );

// --- tables and plots

function table(head: readonly string[], rows: readonly (readonly Child[])[]): HTMLTableElement {
  return h(
    "table",
    {},
    h("thead", {}, h("tr", {}, ...head.map((cell) => h("th", { scope: "col" }, cell)))),
    h(
      "tbody",
      {},
      ...rows.map(([name, ...cells]) =>
        h("tr", {}, h("th", { scope: "row" }, name), ...cells.map((cell) => h("td", {}, cell))),
      ),
    ),
  );
}

function us(value: number | null): string {
  return value === null ? "–" : value < 1000 ? `${value.toFixed(0)} µs` : `${(value / 1000).toFixed(2)} ms`;
}

function fixed(value: number | null | undefined, digits = 2): string {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

const plots = new Map<HTMLElement, Plot>();

function draw(
  host: HTMLElement,
  labels: { x: string; y: string; range?: [number, number] },
  curves: Curve[],
): void {
  if (curves.every(({ x }) => x.length === 0)) return;
  const drawn = plots.get(host);
  if (drawn === undefined) plots.set(host, plot(host, { ...labels, curves, height: 220 }));
  else drawn.update(curves);
}

function showModels({ models }: Status): void {
  const focused = document.activeElement?.getAttribute("data-action");
  const rows = Object.entries(models).map(([name, model]) => [
    name,
    h("span", { class: model.state === "ready" ? "good" : "bad" }, model.state),
    model.kind ?? "–",
    model.link,
    model.tree === null ? "–" : model.tree ? "trees" : "chains",
    String(model.steps),
    fixed(model.tokens_per_step),
    ...(swaps ? [h("span", {}, action(name, "load", "Load"), " ", action(name, "unload", "Unload"))] : []),
  ]);
  const head = [
    "model",
    "state",
    "engine",
    "link",
    "drafts",
    "steps",
    "tokens/step",
    ...(swaps ? ["memory"] : []),
  ];
  modelTable.replaceChildren(table(head, rows));
  if (focused) modelTable.querySelector<HTMLElement>(`[data-action="${CSS.escape(focused)}"]`)?.focus();
  modelNote.textContent = Object.values(models)
    .flatMap(({ reason }) => reason ?? [])
    .join(" ");
  const names = Object.keys(models);
  if (names.join("\n") !== Array.from(picker.options, ({ value }) => value).join("\n")) {
    picker.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  }
  if (!names.includes(chosen)) chosen = names[0] ?? "";
  picker.value = chosen;
}

function action(model: string, what: "load" | "unload", label: string): HTMLButtonElement {
  const button = h(
    "button",
    { type: "button", "data-action": `${what} ${model}`, "aria-label": `${label} ${model}` },
    label,
  );
  button.addEventListener("click", async () => {
    modelNote.textContent = `${label} ${model} …`;
    const path = `models/${encodeURIComponent(model)}/${what}`;
    const response = await fetch(path, { method: "POST", headers: headers() });
    modelNote.textContent = response.ok ? "" : `${label} ${model}: ${(await response.text()).slice(0, 200)}`;
    await refresh();
  });
  return button;
}

function record(name: string, model: Model, at: number): void {
  let past = history.get(name);
  if (past === undefined || model.steps < past.steps) {
    past = { at: [], rate: [], nodes: [], steps: model.steps, tokens: model.tokens };
    history.set(name, past);
  }
  const steps = model.steps - past.steps;
  past.at.push(at);
  past.rate.push(steps > 0 ? (model.tokens - past.tokens) / steps : null);
  past.nodes.push(model.controller?.nodes ?? 0);
  past.steps = model.steps;
  past.tokens = model.tokens;
  for (const list of [past.at, past.rate, past.nodes]) if (list.length > WINDOW) list.shift();
}

function showFigures(name: string, model: Model): void {
  const past = history.get(name);
  speed.textContent = fixed(model.tokens_per_step);
  speedNote.textContent = `${model.tokens} tokens in ${model.steps} steps since the start`;
  if (past !== undefined) {
    draw(rateHost, { x: "seconds", y: "tokens per step" }, [
      { label: "tokens per step, last second", color: "--on", x: past.at, y: past.rate },
    ]);
  }
  const depth = model.acceptance?.by_depth;
  if (depth !== undefined) {
    const x = depth.drafted.map((_, i) => i + 1);
    draw(depthHost, { x: "depth", y: "share accepted", range: [0, 1] }, [
      {
        label: "of the steps",
        color: "--on",
        x,
        y: x.map((_, i) => (model.steps > 0 ? (depth.accepted[i] ?? 0) / model.steps : 0)),
      },
      {
        label: "of the nodes there",
        color: "--off",
        dash: true,
        x,
        y: depth.drafted.map((n, i) => (n > 0 ? (depth.accepted[i] ?? 0) / n : 0)),
      },
    ]);
  }
  const cost = Object.entries(model.cost_us).map(([n, value]) => [Number(n), value / 1000] as const);
  const nodes = model.controller?.nodes ?? 0;
  const at = cost.filter(([n]) => n <= nodes + 1).at(-1);
  draw(costHost, { x: "tokens in a step", y: "ms" }, [
    { label: "cost", color: "--on", x: cost.map(([n]) => n), y: cost.map(([, value]) => value) },
    {
      label: "last step",
      color: "--off",
      kind: "points",
      x: at === undefined ? [] : [at[0]],
      y: at === undefined ? [] : [at[1]],
    },
  ]);
  sourceTable.replaceChildren(
    table(
      ["source", "drafted", "accepted", "share"],
      Object.entries(model.acceptance?.by_source ?? {}).map(([source, { drafted, accepted }]) => [
        source,
        String(drafted),
        String(accepted),
        drafted > 0 ? `${((100 * accepted) / drafted).toFixed(1)} %` : "–",
      ]),
    ),
  );
  const { matrix, controller } = model;
  timesTable.replaceChildren(
    table(
      ["figure", "value"],
      [
        ["drafting, p50", us(model.draft_us.p50)],
        ["drafting, p99", us(model.draft_us.p99)],
        ["link, p50", us(model.link_us.p50)],
        ["link, p99", us(model.link_us.p99)],
        ["both, as the engine waits for them, p50", us(model.exchange_us.p50)],
        ["both, as the engine waits for them, p99", us(model.exchange_us.p99)],
        ["rows of the matrix", String(matrix?.rows ?? "–")],
        [
          "its memory",
          matrix === null
            ? "–"
            : `${(matrix.bytes / 2 ** 20).toFixed(1)} of ${(matrix.limit / 2 ** 20).toFixed(0)} MiB`,
        ],
        ["nodes of the last step", String(controller?.nodes ?? "–")],
        ["slots asleep", String(controller?.asleep ?? "–")],
      ],
    ),
  );
  showAb(model.ab);
}

function showAb(ab: Ab | undefined): void {
  if (ab === undefined) {
    abText.replaceChildren(
      h(
        "p",
        { class: "soft" },
        "Off. Set ab.share in the config to let a share of the requests run without drafts.",
      ),
    );
    return;
  }
  const { ratio, ci, arms, share } = ab;
  abText.replaceChildren(
    h("p", { class: "big" }, ratio === null ? "–" : `${ratio.toFixed(2)} ×`),
    h(
      "p",
      { class: "soft" },
      ci === null
        ? "95 % interval: at least 20 requests of each arm are needed."
        : `95 % interval ${ci[0].toFixed(2)} to ${ci[1].toFixed(2)}`,
    ),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Arms of the live A/B" },
      table(
        ["arm", "requests", "ms per token"],
        (["on", "off"] as const).map((arm) => [
          `drafts ${arm}`,
          String(arms[arm].requests),
          fixed(arms[arm].ms_per_token),
        ]),
      ),
    ),
    h("p", { class: "soft" }, `${(share * 100).toFixed(1)} % of the requests run without drafts.`),
  );
}

// --- try it

tryForm.addEventListener("submit", (event) => {
  event.preventDefault();
  void tryIt();
});

async function tryIt(): Promise<void> {
  go.disabled = true;
  answer.textContent = "";
  trees.replaceChildren();
  tryNote.textContent = "";
  const abort = new AbortController();
  let request = -1;
  let steps = 0;
  let tokens = 0;
  try {
    const watching = await openEvents(`steps?model=${encodeURIComponent(chosen)}`, {
      headers: headers(),
      signal: abort.signal,
    });
    void eachEvent(watching, (data) => {
      for (const step of JSON.parse(data) as ShownStep[]) {
        if (typeof step !== "object") continue;
        if (request < 0) request = step.id;
        if (step.id !== request) continue;
        steps++;
        tokens += step.nodes.filter(({ accepted }) => accepted).length;
        if (steps <= MOST_STEPS) trees.append(treeOf(step));
        tryNote.textContent = `${tokens} tokens in ${steps} steps: ${(tokens / steps).toFixed(2)} tokens per step`;
      }
    }).catch((error: unknown) => {
      if (!abort.signal.aborted) tryNote.textContent = `The steps can't be shown: ${String(error)}`;
    });
    const response = await openEvents("/v1/chat/completions", {
      method: "POST",
      headers: {
        ...headers(),
        "content-type": "application/json",
        "x-aded": withDrafts.checked ? "on" : "off",
      },
      body: JSON.stringify({
        model: chosen,
        messages: [{ role: "user", content: prompt.value }],
        max_tokens: 200,
        temperature: 0,
        stream: true,
      }),
    });
    await eachEvent(response, (data) => {
      if (data === "[DONE]") return;
      const event = JSON.parse(data) as {
        error?: { message?: string };
        choices?: { delta?: { content?: string } }[];
      };
      if (event.error !== undefined) throw new Error(event.error.message ?? "the server sent an error");
      answer.append(event.choices?.[0]?.delta?.content ?? "");
    });
    // the last steps are on their way
    await new Promise((resolve) => setTimeout(resolve, 300));
  } catch (error) {
    tryNote.textContent = error instanceof Error ? error.message : String(error);
  } finally {
    abort.abort();
    go.disabled = false;
  }
}

async function openEvents(path: string, init: RequestInit): Promise<Response> {
  const response = await fetch(path, init);
  if (response.ok && response.body !== null) return response;
  throw new Error(`${path} answers ${response.status}: ${(await response.text()).slice(0, 200)}`);
}

async function eachEvent(response: Response, take: (data: string) => void): Promise<void> {
  const reader = (response.body as ReadableStream<Uint8Array>)
    .pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array>)
    .getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data: ")) take(line.slice(6));
  }
}

/** Nested lists: children of a node below it; a chain stays on one line. */
function treeOf({ nodes, next }: ShownStep): HTMLLIElement {
  const children = nodes.map((_, i) => nodes.flatMap(({ parent }, j) => (parent === i ? [j] : [])));
  const accepted = nodes.slice(1).filter((node) => node.accepted).length;
  const chain = (at: number): HTMLElement => {
    const line = h("span", { class: "chain" });
    let node = at;
    for (;;) {
      line.append(tokenOf(nodes[node].text, nodes[node].accepted));
      if (children[node].length !== 1) break;
      node = children[node][0];
    }
    if (children[node].length > 1) {
      line.append(h("ul", {}, ...children[node].map((child) => h("li", {}, chain(child)))));
    }
    return line;
  };
  return h(
    "li",
    {},
    h("span", { class: "soft" }, `${nodes.length - 1} drafted, ${accepted} accepted `),
    chain(0),
    h("span", { class: "next" }, " → ", tokenOf(next, true)),
  );
}

function tokenOf(text: string, accepted: boolean): HTMLElement {
  const shown = text.replaceAll("\n", "⏎").replaceAll(" ", "·");
  return accepted ? h("strong", { class: "token kept" }, shown) : h("span", { class: "token" }, shown);
}

// --- the log

let lastLine = 0;

async function showLog(): Promise<void> {
  const log = await get<{ next: number; lines: string[] }>(`log?after=${lastLine}`);
  if (log === undefined) return;
  if (log.next < lastLine) lastLine = 0;
  if (log.lines.length === 0) {
    if (logLines.textContent === "") logLines.textContent = "Nothing was logged yet.";
    return;
  }
  const before = lastLine === 0 ? [] : (logLines.textContent ?? "").split("\n");
  lastLine = log.next;
  const bottom = logLines.scrollTop + logLines.clientHeight >= logLines.scrollHeight - 8;
  logLines.textContent = [...before, ...log.lines.map(readable)].slice(-MOST_LINES).join("\n");
  if (bottom) logLines.scrollTop = logLines.scrollHeight;
}

function readable(line: string): string {
  try {
    const { level, time, msg, ...fields } = JSON.parse(line) as { level: number; time: number; msg?: string };
    const word = level >= 50 ? "ERROR" : level >= 40 ? "warn" : "info";
    const rest = Object.keys(fields).length === 0 ? "" : ` ${JSON.stringify(fields)}`;
    return `${new Date(time).toLocaleTimeString()} ${word} ${msg ?? ""}${rest}`;
  } catch {
    return line;
  }
}

// --- once a second

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  key = keyInput.value.trim();
  sessionStorage.setItem("aded-key", key);
  void refresh();
});

picker.addEventListener("change", () => {
  chosen = picker.value;
  if (status !== undefined) show(status);
});

function show(now: Status): void {
  showModels(now);
  const model = now.models[chosen];
  if (model !== undefined) showFigures(chosen, model);
}

const summary = document.getElementById("summary");

async function refresh(): Promise<void> {
  try {
    status = await get<Status>("status");
    if (status === undefined) {
      if (summary !== null) summary.textContent = "This server wants an API key.";
      return;
    }
    // where models come and go, the status counts who waits for them
    swaps = Object.values(status.models).some(({ requests }) => requests !== undefined);
    const line = `version ${status.version}, up ${duration(status.uptime_s)}, ${status.running} requests running, ${status.arms.on} answered with drafts and ${status.arms.off} without`;
    // a screen reader would read a line that changes every second over and over
    summary?.setAttribute("role", "none");
    if (summary !== null) summary.textContent = line;
    for (const [name, model] of Object.entries(status.models)) record(name, model, status.uptime_s);
    show(status);
    await showLog();
  } catch {
    summary?.setAttribute("role", "status");
    if (summary !== null) summary.textContent = "The server does not answer.";
  }
}

function duration(seconds: number): string {
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

async function loop(): Promise<void> {
  if (!document.hidden) await refresh();
  setTimeout(() => void loop(), EVERY_MS);
}

void loop();

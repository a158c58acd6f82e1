/**
 * What one step of the engine leaves behind in the drafter's thread for the garbage collector: bytes per step by function (V8's sampling heap profiler,
 * what was collected meanwhile included), and how many collections there were. The link and the drafter are the real ones and run in this process; the engine
 * is a child process that answers each draft with the next step of a made-up text.
 *
 *     npx tsx scripts/step-garbage.ts [steps, default 20000]
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type HeapProfiler, Session } from "node:inspector";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { unpack } from "msgpackr";
import { AdedDrafter } from "../src/drafter/drafter.ts";
import { Random } from "../src/drafter/random.ts";
import { DraftLinkClient } from "../src/link/client.ts";
import { Framer } from "../src/link/framer.ts";
import { GarbageWatch } from "../src/link/garbage.ts";
import { LatencyRing } from "../src/link/latency.ts";
import { bytes as bin, frame } from "../test/unit/link/support/wire.ts";

const VOCAB = 49_152;
const K = 12;
/** Steps after which the compilers are done, and measuring begins. */
const WARM_STEPS = 5000;
const SAMPLE_BYTES = 512;
const SHOWN = 15;
/** First argument of the child. */
const ENGINE = "engine";

/** How a made-up text goes on, three times of four. */
const followerOf = (token: number): number => (token * 7 + 3) % 500;

function ints(bytes: Uint8Array): Int32Array {
  return new Int32Array(Uint8Array.from(bytes).buffer);
}

/** The engine's end: verifies each draft against the made-up text. */
class Engine {
  readonly #socket: Socket;
  readonly #random = new Random(1);
  #seq = 0;
  #root = 5;

  constructor(socket: Socket) {
    this.#socket = socket;
    const framer = new Framer(2 ** 20, (bytes, start, end) =>
      this.#onFrame(unpack(bytes.subarray(start, end))),
    );
    socket.on("data", (chunk: Buffer) => framer.push(chunk));
    socket.on("error", () => {});
  }

  #onFrame(answer: { type: string; slots: { tokens: Uint8Array; parents: Uint8Array }[] }): void {
    if (answer.type === "draft") {
      const [draft] = answer.slots;
      this.#step(ints(draft?.tokens ?? new Uint8Array(0)), ints(draft?.parents ?? new Uint8Array(0)));
      return;
    }
    const shape = { n_vocab: VOCAB, n_slots: 1, max_nodes: 64, tree: true, max_chain: 0, top_k: K };
    const costs = { cost_n: bin(Int32Array.of(1, 8, 64)), cost_us: bin(Float32Array.of(6000, 7000, 20_000)) };
    const model = { model: "made up", vocab_hash: "0000000000000000" };
    this.#send({ type: "hello", version: 1, ...model, ...shape, ...costs });
    const sampling = { greedy: true, temp: 0, grammar: false, draft: true };
    const tokens = bin(Int32Array.of(1, 2, 3, 4, this.#root));
    this.#send({ type: "begin", slot: 0, id: 1, scope: "", keep: 0, tokens, sampling });
    this.#step(new Int32Array(0), new Int32Array(0));
  }

  #step(tokens: Int32Array, above: Int32Array): void {
    const nodes = Int32Array.of(this.#root, ...tokens);
    const parents = Int32Array.of(-1, ...above.map((parent) => parent + 1));
    const successors = [...nodes].flatMap((node) =>
      Array.from({ length: K }, (_, j) => (j === 0 ? followerOf(node) : (node * 31 + j * 17) % VOCAB)),
    );
    const accepted: number[] = [];
    const accepting: number[] = [];
    for (let at = 0; at >= 0; ) {
      accepting.push(at);
      const next = this.#random.below(4) > 0 ? followerOf(nodes[at]) : this.#random.below(VOCAB);
      accepted.push(next);
      at = nodes.findIndex((node, i) => node === next && parents[i] === at);
    }
    this.#root = accepted[accepted.length - 1];
    const slot = {
      slot: 0,
      accepted: bin(Int32Array.from(accepted)),
      nodes: bin(nodes),
      parents: bin(parents),
      path: bin(Int32Array.from(accepting)),
      k: K,
      ids: bin(Int32Array.from(successors)),
      probs: bin(Float32Array.from(successors, (_, i) => 0.5 ** (1 + (i % K)))),
      room: 60,
      draft: true,
    };
    const times = { us: 6000, n_batch: nodes.length, spent_us: 100, budget_us: 50_000 };
    this.#send({ type: "step", seq: ++this.#seq, ...times, ask: true, slots: [slot] });
  }

  #send(map: object): void {
    this.#socket.write(frame(map));
  }
}

/** Bytes by function, most first. */
function byFunction(profile: HeapProfiler.SamplingHeapProfile): [name: string, bytes: number][] {
  const bytes = new Map<string, number>();
  const walk = ({ callFrame, selfSize, children }: HeapProfiler.SamplingHeapProfileNode): void => {
    const file = callFrame.url.split("/").slice(-2).join("/");
    const name = `${callFrame.functionName || "(no name)"} ${file}`.trim();
    bytes.set(name, (bytes.get(name) ?? 0) + selfSize);
    children.forEach(walk);
  };
  walk(profile.head);
  return [...bytes].sort((a, b) => b[1] - a[1]);
}

async function measure(steps: number, socketPath: string): Promise<void> {
  const child = fork(fileURLToPath(import.meta.url), [ENGINE, socketPath], { execArgv: process.execArgv });
  const ended = once(child, "exit").then(() => {
    throw new Error("the engine's process ended");
  });
  await Promise.race([once(child, "message"), ended]);
  const garbage = new GarbageWatch();
  const session = new Session();
  session.connect();
  let seen = 0;
  let finish = (): void => {};
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const client = new DraftLinkClient({
    socketPath,
    topK: K,
    log: { debug() {}, info() {}, warn: console.error, error: console.error },
    draftLatency: new LatencyRing(),
    linkLatency: new LatencyRing(),
    exchangeLatency: new LatencyRing(),
    createDrafter: (info) => {
      const drafter = new AdedDrafter(info);
      const observe = drafter.observe.bind(drafter);
      drafter.observe = (step) => {
        seen++;
        if (seen === WARM_STEPS) {
          garbage.start();
          const parameters = {
            samplingInterval: SAMPLE_BYTES,
            includeObjectsCollectedByMajorGC: true,
            includeObjectsCollectedByMinorGC: true,
          };
          session.post("HeapProfiler.startSampling", parameters);
        }
        if (seen === WARM_STEPS + steps) finish();
        observe(step);
      };
      return drafter;
    },
  });
  client.start();
  await Promise.race([finished, ended]);
  client.stop();
  child.kill();
  const profile = await new Promise<HeapProfiler.SamplingHeapProfile>((resolve, reject) => {
    session.post("HeapProfiler.stopSampling", (error, answer) =>
      error === null ? resolve(answer.profile) : reject(error),
    );
  });
  const functions = byFunction(profile);
  const all = functions.reduce((sum, [, bytes]) => sum + bytes, 0);
  console.log(`${(all / steps).toFixed(0).padStart(7)} bytes per step, of these`);
  for (const [name, bytes] of functions.slice(0, SHOWN)) {
    console.log(`${(bytes / steps).toFixed(0).padStart(7)} ${name}`);
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  garbage.stop();
  console.log(`${garbage.figures.pauses.toString().padStart(7)} collections in ${steps} steps`);
}

if (process.argv[2] === ENGINE) {
  const server = createServer((socket) => new Engine(socket));
  server.listen(process.argv[3], () => process.send?.("listening"));
} else {
  const folder = mkdtempSync(path.join(tmpdir(), "aded-garbage-"));
  try {
    await measure(Number(process.argv[2] ?? 20_000), path.join(folder, "draft.sock"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

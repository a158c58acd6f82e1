/**
 * Runs the drafter over made-up text for many matrix updates and reports what a long service would show: garbage-collection pauses, heap growth
 * per step, the memory bound, µs per draft, and how long writing and loading a snapshot of all that takes. Exits with 1 when the bound was crossed or
 * the snapshot is not what was learnt.
 *
 *     npx tsx scripts/drafter-soak.ts [updates, default 10000000] [matrix MiB, default 64]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { VerifiedSlot } from "../src/drafter/draft.ts";
import { AdedDrafter } from "../src/drafter/drafter.ts";
import { Random } from "../src/drafter/random.ts";
import { GarbageWatch } from "../src/link/garbage.ts";

const updates = Number(process.argv[2] ?? 10_000_000);
const bytes = Number(process.argv[3] ?? 64) * 2 ** 20;
const NODES = 16;
const K = 12;
const VOCAB = 49_152;
const TEXT = 400;
/** Rows that one verified node moves: tri-gram, bi-gram. */
const UPDATES_PER_NODE = 2;
/** Steps after which the compilers are done, and measuring begins. */
const WARM_STEPS = 5000;

const garbage = new GarbageWatch();

const random = new Random(1);
const ENGINE = {
  model: "soak",
  nVocab: VOCAB,
  vocabHash: "0000000000000000",
  nSlots: 1,
  maxNodes: NODES,
  tree: true,
  maxChain: 0,
  topK: K,
  costTokens: Int32Array.of(1, 64),
  costUs: Float32Array.of(1000, 2000),
};
const drafter = fresh();

function fresh(): AdedDrafter {
  return new AdedDrafter(ENGINE, { fixedNodes: NODES, matrixBytes: bytes });
}

async function timed<T>(work: () => T | Promise<T>): Promise<{ value: T; ms: number }> {
  const start = performance.now();
  return { value: await work(), ms: performance.now() - start };
}

// the engine's frame, made once: what is allocated from here on is the drafter's
const slot: VerifiedSlot = {
  slot: 0,
  accepted: new Int32Array(1),
  nodes: new Int32Array(NODES + 1),
  parents: new Int32Array(NODES + 1).fill(-1),
  path: new Int32Array(1),
  k: K,
  ids: new Int32Array((NODES + 1) * K),
  probs: new Float32Array((NODES + 1) * K),
  room: NODES,
  draft: true,
};
const step = { decodeUs: 0, nBatch: 1, slots: [slot] };
const sampling = { greedy: true, temperature: 0, grammar: false, draft: true };
const samples = new Float64Array(1 << 16);

let done = 0;
let steps = 0;
let most = 0;
let heapStart = 0;
let text = 0;
while (done < updates) {
  const prompt = Int32Array.of(random.below(VOCAB), random.below(VOCAB), random.below(VOCAB));
  drafter.begin({ slot: 0, id: text++, scope: "", keep: 0, tokens: prompt, sampling });
  let root = prompt[2];
  let drafted = 0;
  for (let i = 0; i < TEXT; i++) {
    // rare tokens are as likely as frequent ones every other time: rows come without end
    const next = random.next() < 0.5 ? (root * 7 + 3) % 500 : random.below(VOCAB);
    slot.nodes[0] = root;
    slot.accepted[0] = next;
    const n = drafted + 1;
    for (let node = 0; node < n; node++) {
      for (let j = 0; j < K; j++) {
        slot.ids[node * K + j] = j === 0 && node === 0 ? next : (slot.nodes[node] * 31 + j * 17) % VOCAB;
        slot.probs[node * K + j] = 0.5 ** (j + 1);
      }
    }
    const start = performance.now();
    drafter.observe(step);
    const draft = drafter.draft(step)[0];
    samples[steps & (samples.length - 1)] = (performance.now() - start) * 1000;
    drafted = draft?.tokens.length ?? 0;
    if (draft !== undefined) {
      for (let d = 0; d < drafted; d++) {
        slot.nodes[d + 1] = draft.tokens[d];
        slot.parents[d + 1] = draft.parents[d] + 1;
      }
    }
    for (let d = drafted; d < NODES; d++) {
      // a frame of fixed length: nodes that were not drafted hang below the root as tokens of their own
      slot.nodes[d + 1] = (root + d + 1) % VOCAB;
      slot.parents[d + 1] = 0;
    }
    done += (drafted + 1) * UPDATES_PER_NODE;
    root = next;
    steps++;
    if (steps === WARM_STEPS) {
      garbage.start();
      heapStart = process.memoryUsage().heapUsed;
    }
  }
  drafter.end(0, text - 1, "limit");
  most = Math.max(most, drafter.stats().matrix.bytes);
  // lets the observer of collections speak
  if (text % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
}
await new Promise((resolve) => setTimeout(resolve, 50));
const collected = { ...garbage.figures };
const us = samples.slice(0, Math.min(steps, samples.length)).sort();
const { matrix } = drafter.stats();
const heap = process.memoryUsage();
const folder = mkdtempSync(path.join(tmpdir(), "aded-soak-"));
const snapshot = path.join(folder, "soak.snapshot");
const written = await timed(() => drafter.save(snapshot));
const copy = fresh();
const loaded = await timed(() => copy.load(snapshot));
rmSync(folder, { recursive: true });
const result = {
  updates: done,
  steps,
  rows: matrix.rows,
  most_bytes: most,
  limit: bytes,
  bound_held: most <= bytes,
  us: { p50: us[us.length >> 1], p99: us[Math.floor(us.length * 0.99)] },
  gc: collected,
  heap_growth_bytes_per_step:
    steps > WARM_STEPS ? (heap.heapUsed - heapStart) / (steps - WARM_STEPS) : Number.NaN,
  array_buffers: heap.arrayBuffers,
  snapshot: {
    bytes: loaded.value.bytes,
    rows: loaded.value.rows,
    write_ms: written.ms,
    load_ms: loaded.ms,
  },
};
console.log(JSON.stringify(result, null, 2));
process.exitCode = result.bound_held && loaded.value.rows === matrix.rows ? 0 : 1;

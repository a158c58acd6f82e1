/**
 * Whether reading corpora disturbs who is being answered: the times between the tokens of a served answer, with and without a corpus being read
 * beside it as the server reads it, block by block in turn.
 *
 *     npx aded serve &
 *     npx tsx scripts/corpus-itl.ts CORPUS.parquet [--url http://127.0.0.1:8080] [--blocks 10] [--max-tokens 200]
 */
import { parseArgs } from "node:util";
import { ChatClient } from "../src/bench/chat-client.ts";
import { quantiles } from "../src/bench/statistics.ts";
import { loadFloor } from "../src/corpus/floor-source.ts";

const BOUND = 128 * 2 ** 20;
const QUESTION = "Write a travel blog post about a trip to Hawaii.";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: "string", default: "http://127.0.0.1:8080" },
    blocks: { type: "string", default: "10" },
    "max-tokens": { type: "string", default: "200" },
  },
});
const [file] = positionals;
if (file === undefined) {
  console.error(
    "usage: npx tsx scripts/corpus-itl.ts CORPUS.parquet [--url U] [--blocks N] [--max-tokens N]",
  );
  process.exit(2);
}
const client = new ChatClient(values.url, {});
const maxTokens = Number(values["max-tokens"]);
/** Whether somebody is being answered, as the server's proxy tells those who read for it. */
let asked = false;

/** Times between tokens of one answer, ms. Without drafts: each token is a step. */
async function gaps(): Promise<number[]> {
  asked = true;
  const { gapsMs } = await client.chat({ text: QUESTION, arm: "off", maxTokens, temperature: 0, seed: 1 });
  asked = false;
  return gapsMs;
}

/** Reads the corpus again and again until told to end. @returns how often */
async function readOn(signal: AbortSignal): Promise<number> {
  let times = 0;
  try {
    for (; !signal.aborted; times++) {
      await loadFloor(
        { corpora: [{ file, weight: 1 }], topK: 12, bound: BOUND },
        { signal, busy: () => asked },
      );
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return times;
}

const alone: number[] = [];
const beside: number[] = [];
let read = 0;
await gaps();
for (let block = 0; block < Number(values.blocks); block++) {
  const stop = new AbortController();
  const reading = readOn(stop.signal);
  beside.push(...(await gaps()));
  stop.abort();
  read += await reading;
  alone.push(...(await gaps()));
}
await client.close();
const [without, during] = [quantiles(alone), quantiles(beside)];
if (without === null || during === null) throw new Error("the answers had no tokens");
console.log(
  JSON.stringify({
    gaps: [alone.length, beside.length],
    itl_ms: { alone: without, reading: during },
    ratio: { p50: during.p50 / without.p50, p99: during.p99 / without.p99 },
    corpora_read_to_the_end: read,
  }),
);

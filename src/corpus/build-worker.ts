/** A counting worker: records in, parts of a corpus out. Tokenises and counts in a thread of its own, in bounded memory. */
import path from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { AdedError, messageOf } from "../errors.ts";
import type { BatchDone, CountBatch, CountInput, FromWorker, ToWorker } from "./build-messages.ts";
import { renderTurns } from "./chat-markers.ts";
import { RecordFault, readRecord, type Turn } from "./formats.ts";
import { GramCounter } from "./gram-counter.ts";
import { PartWriter } from "./part-writer.ts";
import { TextGrams } from "./text-grams.ts";
import { loadTokenizer } from "./tokenizer.ts";

if (parentPort === null)
  throw new Error("src/corpus/build-worker.ts runs only as a worker thread of a build");
const port = parentPort;
const input = workerData as CountInput;
const post = (message: FromWorker): void => port.postMessage(message);

const stop = new Int32Array(input.stop);
const isStopped = (): boolean => Atomics.load(stop, 0) !== 0;
const decoder = new TextDecoder();
const counter = new GramCounter(input.slotsLog2);
let parts = 0;

try {
  const tokenizer = await loadTokenizer(input.modelPath);
  const writer = await PartWriter.create();
  const flush = async (): Promise<void> => {
    if (counter.size === 0) return;
    const file = path.join(input.folder, `part-${input.worker}-${String(parts++).padStart(5, "0")}.parquet`);
    const rows = await writer.write(counter, file);
    post({ type: "part", file, rows });
  };
  const grams = new TextGrams(tokenizer, counter, { whenFull: flush, isStopped });

  const count = async (batch: CountBatch): Promise<BatchDone> => {
    const done: BatchDone = {
      type: "done",
      input: batch.input,
      documents: 0,
      tokens: 0,
      filtered: 0,
      faults: [],
    };
    const before = grams.tokens;
    let from = 0;
    for (let i = 0; i < batch.ends.length && !isStopped(); i++) {
      const text = decoder.decode(batch.bytes.subarray(from, batch.ends[i]));
      from = batch.ends[i];
      let turns: Turn[] | undefined;
      try {
        turns = readRecord(batch.json ? JSON.parse(text) : text, input.format);
      } catch (error) {
        if (!(error instanceof RecordFault || error instanceof SyntaxError)) throw error;
        const message = error instanceof SyntaxError ? `it is no JSON: ${error.message}` : error.message;
        done.faults.push({ line: batch.lines[i], message });
        continue;
      }
      if (turns === undefined) {
        done.filtered++;
        continue;
      }
      done.documents++;
      await countTurns(turns);
    }
    done.tokens = grams.tokens - before;
    return done;
  };

  const countTurns = async (all: Turn[]): Promise<void> => {
    const { role, markers } = input;
    const turns =
      role === undefined ? all : all.filter((turn) => turn.role === undefined || turn.role === role);
    const isChat = turns.some((turn) => turn.role !== undefined);
    if (isChat && markers !== undefined) {
      await grams.add(renderTurns(turns, markers, role === undefined), true);
      return;
    }
    for (const { text } of turns) await grams.add(text, false);
  };

  const end = async (): Promise<void> => {
    await writer.close();
    await tokenizer.dispose();
    port.close();
  };

  // one message after the other: a flush is awaited in between
  let work = Promise.resolve();
  let failed = false;
  port.on("message", (message: ToWorker) => {
    work = work
      .then(async () => {
        if (message.type === "stop") return end();
        if (failed || isStopped()) return;
        if (message.type === "batch") return post(await count(message));
        await flush();
        post({ type: "finished", grams: grams.grams, checksum: counter.checksum });
      })
      .catch((error: unknown) => {
        failed = true;
        fail(error);
      });
  });
  post({ type: "ready" });
} catch (error) {
  fail(error);
  port.close();
}

function fail(error: unknown): void {
  const known = error instanceof AdedError ? { code: error.code, hint: error.hint } : {};
  post({ type: "failed", message: messageOf(error), ...known });
}

/**
 * `aded corpus grow`: the served model writes its own corpus. It answers prompts while nobody else wants it, and what is counted are
 * its probabilities: each of the likeliest tokens at each position counts by its probability, in thousandths of an occurrence.
 */
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { silentProgress, type WorkOptions } from "../engine/progress.ts";
import { AdedError } from "../errors.ts";
import { countParts, partsTable } from "./count.ts";
import { GramCounter } from "./gram-counter.ts";
import type { GrowClient } from "./grow-client.ts";
import type { GrowPrompt } from "./grow-prompts.ts";
import { GrowFolder, type OpenAnswer, promptsChecksum } from "./grow-state.ts";
import { DEFAULT_MEMORY, makeCorpus } from "./make-corpus.ts";
import { PartWriter } from "./part-writer.ts";
import type { Vocabulary } from "./vocabulary.ts";

export interface GrowOptions extends WorkOptions {
  prompts: readonly GrowPrompt[];
  /** What the prompts are called in the corpus. */
  source: string;
  out: string;
  /** Of the served model. */
  vocabulary: Vocabulary;
  /** Name of the served model. */
  model: string;
  /** Longest answer, tokens. */
  maxTokens: number;
  /** Answers per prompt: the first greedy, the others sampled at `temperature`. */
  repeat: number;
  temperature: number;
  /** Successors counted per token. */
  topK: number;
  /** Stop after that many tokens, those of earlier runs included. */
  budgetTokens?: number;
  /** Stop after that much time, ms. */
  budgetMs?: number;
  /** Wait while others are being answered. @default true */
  onlyIdle?: boolean;
}

export interface GrowReport {
  out: string;
  /** Answers and tokens, those of earlier runs included. */
  answers: number;
  tokens: number;
  /** All prompts were answered. */
  complete: boolean;
  resumed: boolean;
  rows: number;
  bytes: number;
  /** How often it stepped aside for others. */
  yielded: number;
  seconds: number;
}

/** Units of n per occurrence. */
export const GROWN_SCALE = 1000;

const SLOTS_LOG2 = 18;
/** Between looks at what else the server does, ms. */
const POLL_MS = 200;
/** How long nobody else may have been there before it goes on, ms. */
const QUIET_MS = 1000;
/** What a crash may cost, ms. */
const SAVE_MS = 30_000;

/** @throws AdedError; the signal's reason when aborted: then the same call later goes on where this one stopped */
export async function growCorpus(client: GrowClient, options: GrowOptions): Promise<GrowReport> {
  const { prompts, vocabulary, topK, maxTokens, repeat, temperature } = options;
  return makeCorpus(options.out, options, async (target, work) => {
    const folder = await GrowFolder.open(`${target}.grow`, {
      vocabHash: vocabulary.hash,
      topK,
      maxTokens,
      repeat,
      temperature,
      prompts: promptsChecksum(prompts),
    });
    const growth = await Growth.create(client, options, folder);
    const { resumed } = folder;
    const started = performance.now();
    try {
      await growth.run();
    } finally {
      await growth.close();
    }
    const { state } = folder;
    if (folder.parts.length === 0) {
      throw new AdedError("ADED_CORPUS", "nothing was generated", {
        hint: "check the prompts and the budget",
      });
    }
    const complete = state.answers >= prompts.length * repeat;
    const { rows, bytes } = await countParts({
      grams: partsTable(folder.parts),
      out: target,
      folder: work,
      spill: path.join(work, "spill"),
      meta: {
        vocabHash: vocabulary.hash,
        nVocab: vocabulary.size,
        tokenizer: vocabulary.tokenizer,
        model: options.model,
        format: "grown",
        template: true,
        scale: GROWN_SCALE,
        total: state.total,
        checksum: state.checksum,
        topK: 0,
        sources: [
          { name: options.source, files: 1, bytes: 0, documents: state.answers, tokens: state.tokens },
        ],
      },
      memory: DEFAULT_MEMORY,
      threads: 1,
      signal: options.signal,
    });
    if (complete) await folder.remove();
    return {
      out: options.out,
      answers: state.answers,
      tokens: state.tokens,
      complete,
      resumed,
      rows,
      bytes,
      yielded: growth.yielded,
      seconds: (performance.now() - started) / 1000,
    };
  });
}

class Growth {
  readonly #client: GrowClient;
  readonly #options: GrowOptions;
  readonly #folder: GrowFolder;
  readonly #writer: PartWriter;
  readonly #counter = new GramCounter(SLOTS_LOG2);
  readonly #started = performance.now();
  /** Tokens of earlier runs. */
  readonly #earlier: number;
  /** The answer that is being written. */
  #open: OpenAnswer | undefined;
  /** Tokens and answers since the last save. */
  #tokens = 0;
  #answers = 0;
  #total = 0;
  #checksumBefore = 0;
  #savedAt = performance.now();
  yielded = 0;

  private constructor(client: GrowClient, options: GrowOptions, folder: GrowFolder, writer: PartWriter) {
    this.#client = client;
    this.#options = options;
    this.#folder = folder;
    this.#writer = writer;
    this.#earlier = folder.state.tokens;
  }

  static async create(client: GrowClient, options: GrowOptions, folder: GrowFolder): Promise<Growth> {
    return new Growth(client, options, folder, await PartWriter.create());
  }

  close(): Promise<void> {
    return this.#writer.close();
  }

  /** Answers prompts until all are answered or the budget is spent; also when it is aborted everything so far is saved. */
  async run(): Promise<void> {
    const { prompts, repeat, signal, progress = silentProgress } = this.#options;
    const { state } = this.#folder;
    const all = prompts.length * repeat;
    const task = progress.task("grow", "steps");
    try {
      while (state.answers + this.#answers < all && !this.#spent()) {
        signal?.throwIfAborted();
        const answer = state.answers + this.#answers;
        const note = `${state.tokens + this.#tokens} tokens, ${this.#rate()} tokens/s, stepped aside ${this.yielded} times`;
        task.update(answer, all, note);
        await this.#answer(answer);
        if (performance.now() - this.#savedAt > SAVE_MS || this.#counter.full) await this.#save();
      }
      task.end("done");
    } catch (error) {
      task.end(signal?.aborted ? "interrupted" : "failed");
      throw error;
    } finally {
      await this.#save();
    }
  }

  /** Answer number `index`: all prompts once, greedily, then again and again with other seeds. */
  async #answer(index: number): Promise<void> {
    const { prompts, maxTokens, temperature, topK, signal } = this.#options;
    const round = Math.floor(index / prompts.length);
    const { partial } = this.#folder.state;
    await this.#untilIdle();
    if (partial?.index === index) {
      this.#open = partial;
    } else {
      const tokens = await this.#client.tokenize(prompts[index % prompts.length], signal);
      this.#open = { index, tokens, end: tokens.length + maxTokens };
    }
    const { tokens, end } = this.#open;
    let finished = tokens.length >= end;
    while (!finished) {
      if (this.#spent()) return;
      const before = tokens.length;
      const ended = await this.#generate(tokens, {
        maxTokens: end - tokens.length,
        temperature: round === 0 ? 0 : temperature,
        seed: 1 + index,
        topK,
      });
      finished = ended || tokens.length >= end;
      if (finished) break;
      if (tokens.length === before) await delay(POLL_MS, undefined, { signal });
      await this.#untilIdle();
    }
    this.#open = undefined;
    this.#answers++;
  }

  /** Appends what is generated to `tokens`. False when it broke off: for somebody else, or because the budget is spent. */
  async #generate(
    tokens: number[],
    how: { maxTokens: number; temperature: number; seed: number; topK: number },
  ): Promise<boolean> {
    const { signal, onlyIdle = true } = this.#options;
    const done = new AbortController();
    const busy = new AbortController();
    const stop = signal === undefined ? busy.signal : AbortSignal.any([signal, busy.signal]);
    const watching = onlyIdle ? this.#watch(done.signal, () => busy.abort()) : undefined;
    try {
      for await (const { id, ids, probs } of this.#client.generate({ tokens: [...tokens], ...how }, stop)) {
        this.#count(tokens, ids, probs);
        tokens.push(id);
        this.#tokens++;
        if (this.#spent()) return false;
      }
      return true;
    } catch (error) {
      if (!busy.signal.aborted || signal?.aborted) throw error;
      this.yielded++;
      return false;
    } finally {
      done.abort();
      await watching;
    }
  }

  /** Counts the distribution after the last two tokens. */
  #count(tokens: readonly number[], ids: readonly number[], probs: readonly number[]): void {
    if (tokens.length < 2) return;
    const a = tokens[tokens.length - 2];
    const b = tokens[tokens.length - 1];
    for (let i = 0; i < ids.length; i++) {
      const n = Math.round(probs[i] * GROWN_SCALE);
      if (n === 0) continue;
      this.#counter.add(a, b, ids[i], n);
      this.#total += n;
    }
  }

  /** Tells once when somebody else is being answered beside us. */
  async #watch(done: AbortSignal, onBusy: () => void): Promise<void> {
    while (!done.aborted) {
      try {
        await delay(POLL_MS, undefined, { signal: done });
        if (((await this.#client.running(done)) ?? 1) > 1) return onBusy();
      } catch {
        // aborted, or an answer that failed: asked again, and if the server is gone the generation itself tells
      }
    }
  }

  /** Waits until nobody has been answered for a while. */
  async #untilIdle(): Promise<void> {
    const { signal, onlyIdle = true } = this.#options;
    if (!onlyIdle) return;
    let quietSince = performance.now() - (this.yielded > 0 ? 0 : QUIET_MS);
    for (;;) {
      const running = (await this.#client.running(signal)) ?? 0;
      const now = performance.now();
      if (running > 0) quietSince = now;
      else if (now - quietSince >= QUIET_MS) return;
      if (this.#spent()) return;
      await delay(POLL_MS, undefined, { signal });
    }
  }

  #spent(): boolean {
    const { budgetTokens = Number.POSITIVE_INFINITY, budgetMs = Number.POSITIVE_INFINITY } = this.#options;
    const tokens = this.#folder.state.tokens + this.#tokens;
    return tokens >= budgetTokens || performance.now() - this.#started >= budgetMs;
  }

  #rate(): string {
    const { state } = this.#folder;
    const seconds = (performance.now() - this.#started) / 1000;
    return ((state.tokens + this.#tokens - this.#earlier) / Math.max(seconds, 0.001)).toFixed(1);
  }

  /** Writes what was counted since the last time as a part, then the state that names it. */
  async #save(): Promise<void> {
    this.#savedAt = performance.now();
    const { state } = this.#folder;
    if (this.#counter.size > 0) {
      const file = this.#folder.nextPart();
      const checksum = this.#counter.checksum;
      await this.#writer.write(this.#counter, file);
      state.parts.push(path.basename(file));
      state.checksum = (state.checksum + ((checksum - this.#checksumBefore) >>> 0)) % 2 ** 32;
      this.#checksumBefore = checksum;
    }
    state.answers += this.#answers;
    state.tokens += this.#tokens;
    state.total += this.#total;
    this.#answers = 0;
    this.#tokens = 0;
    this.#total = 0;
    state.partial = this.#open;
    await this.#folder.save();
  }
}

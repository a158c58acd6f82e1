/** The random load of the soak tests: answers whole and streamed, clients that leave; every complete text is compared with the engine's own. */
import { setTimeout as delay } from "node:timers/promises";
import type { Random } from "../src/drafter/random.ts";
import type { Endpoint } from "../test/e2e/support/endpoint.ts";

const MAX_TOKENS = 32;
/** Statuses that a request may get while an engine is away: broken, not there. */
const REFUSALS = [502, 503];
/** More faults than that tell nothing new. */
const MOST_FAULTS = 20;

const SUBJECTS = [
  "rain",
  "a lighthouse",
  "bread",
  "the number seven",
  "a fox",
  "trains",
  "winter",
  "a key",
  "maps",
  "salt",
];
export const PROMPTS = SUBJECTS.map(
  (subject) => `Write a sentence about ${subject}, then another one about ${subject}.`,
);

export class SoakLoad {
  readonly faults: string[] = [];
  /** Answers whole and right, streams whole and right, clients that left, streams that broke and said so, refusals. */
  readonly seen = { same: 0, streamed: 0, left: 0, broken: 0, refused: 0 };
  /** By model, then by prompt. */
  readonly #wanted = new Map<string, string[]>();
  readonly #random: Random;
  readonly #proxy: Endpoint;

  constructor(proxy: Endpoint, random: Random) {
    this.#proxy = proxy;
    this.#random = random;
  }

  get failed(): boolean {
    return this.faults.length >= MOST_FAULTS;
  }

  /** How many requests did not fail. */
  get passed(): number {
    return Object.values(this.seen).reduce((sum, count) => sum + count, 0);
  }

  /** Learns what a model's engine says without drafts, to all prompts. */
  async learn(model: string, engine: Endpoint): Promise<void> {
    const texts: string[] = [];
    for (let which = 0; which < PROMPTS.length; which++) {
      const headers = { "x-aded": "off" };
      const answer = await engine.post<{ content: string }>(
        "/completion",
        body(model, which, false),
        headers,
      );
      texts.push(answer.content);
    }
    this.#wanted.set(model, texts);
  }

  /** One request of one kind or another. */
  async one(model: string): Promise<void> {
    const which = this.#random.below(PROMPTS.length);
    const kind = this.#random.next();
    try {
      if (kind < 0.35) await this.whole(model, which);
      else await this.#stream(model, which, kind < 0.6 ? 1 + this.#random.below(MAX_TOKENS) : undefined);
    } catch (error) {
      this.faults.push(`a request was not answered: ${(error as Error).message}`);
    }
  }

  /** An answer in one piece. */
  async whole(model: string, which: number): Promise<void> {
    const answer = await this.#proxy.send("POST", "/completion", {
      body: JSON.stringify(body(model, which, false)),
    });
    if (answer.status !== 200) {
      this.seen.refused++;
      if (!REFUSALS.includes(answer.status)) this.faults.push(`status ${answer.status}: ${answer.body}`);
      await delay(50);
      return;
    }
    const { content } = JSON.parse(answer.body.toString()) as { content: string };
    if (content === this.#text(model, which)) this.seen.same++;
    else this.faults.push(`another text of ${model} for "${PROMPTS[which]}": ${content}`);
  }

  /** The last request, when all is well again: it must be answered. */
  async last(model: string): Promise<void> {
    const { refused } = this.seen;
    await this.whole(model, 0);
    if (this.seen.refused > refused) this.faults.push(`${model} does not answer at the end`);
  }

  /** @param leavesAfter events after which the client is gone */
  async #stream(model: string, which: number, leavesAfter = Number.POSITIVE_INFINITY): Promise<void> {
    const { seen, faults } = this;
    const wanted = this.#text(model, which);
    const stream = await this.#proxy.stream("/completion", body(model, which, true));
    let text = "";
    let events = 0;
    let complete = false;
    let error = stream.status !== 200;
    try {
      for await (const { field, value } of stream.events) {
        if (++events > leavesAfter) {
          stream.abort();
          break;
        }
        const event =
          field === "data"
            ? (JSON.parse(value) as { content?: string; stop?: boolean; error?: unknown })
            : {};
        if (event.error !== undefined || field === "error") error = true;
        text += event.content ?? "";
        complete ||= event.stop === true;
      }
    } catch {
      error = true;
    }
    if (events > leavesAfter) seen.left++;
    else if (complete && text === wanted) seen.streamed++;
    else if (complete) faults.push(`another streamed text of ${model} for "${PROMPTS[which]}": ${text}`);
    else if (error) seen.broken++;
    else faults.push(`a stream ended without its last event and without an error: ${text}`);
    if (!complete && events <= leavesAfter && !wanted.startsWith(text))
      faults.push(`a broken stream of ${model} held another text: ${text}`);
  }

  #text(model: string, which: number): string {
    const texts = this.#wanted.get(model);
    if (texts === undefined) throw new Error(`the texts of ${model} are not known`);
    return texts[which];
  }
}

function body(model: string, which: number, stream: boolean): object {
  return {
    model,
    prompt: PROMPTS[which],
    n_predict: MAX_TOKENS,
    temperature: 0,
    stream,
    cache_prompt: false,
  };
}

/** A number from the command line. Ends the process if it is none above 0. */
export function numberFlag(name: string, fallback: number): number {
  const at = process.argv.indexOf(`--${name}`);
  const value = at < 0 ? fallback : Number(process.argv[at + 1]);
  if (value > 0) return value;
  console.error(`soak: --${name} wants a number above 0`);
  process.exit(2);
}

/** Resident memory of this process from a certain time on, by how much it has grown. */
export class MemoryWatch {
  readonly #from: number;
  #first = 0;

  /** @param from when the first value counts, as Date.now() */
  constructor(from: number) {
    this.#from = from;
  }

  look(): void {
    if (this.#first === 0 && Date.now() > this.#from) this.#first = process.memoryUsage().rss;
  }

  /** Bytes; 0 when the first value was never taken. */
  grown(): number {
    globalThis.gc?.();
    return this.#first === 0 ? 0 : process.memoryUsage().rss - this.#first;
  }
}

/** Resident memory may grow by that much between the first tenth and the end, bytes. */
const GROWTH = 128 * 2 ** 20;

/** Prints what was seen, the faults, and the line "N passed, N failed". @returns the exit status */
export function report(load: SoakLoad, grown: number, more: Record<string, number>): number {
  const { faults, seen } = load;
  const mib = Math.round(grown / 2 ** 20);
  if (grown > GROWTH) faults.push(`memory grew by ${mib} MiB`);
  console.log(JSON.stringify({ ...more, ...seen, grown_mib: mib }));
  for (const fault of faults) console.log(`FAILED ${fault}`);
  console.log(`${load.passed} passed, ${faults.length} failed`);
  return faults.length === 0 && seen.same + seen.streamed > 0 ? 0 : 1;
}

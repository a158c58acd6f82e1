/**
 * `npm run test:soak [-- --minutes 20 --seed 1 --clients 4]`: the whole path, real engine and model, under random load: answers whole and
 * streamed, clients that leave, a drafter's thread that is stopped, an engine that is killed. Every complete text is compared with
 * the engine's own (drafts off); a stream that breaks off must not look complete; memory must not grow. The last line is
 * "N passed, N failed"; status 1 where something failed.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Random } from "../src/drafter/random.ts";
import { type Stack, startStack } from "../test/e2e/support/stack.ts";

const flag = (name: string, fallback: number): number => {
  const at = process.argv.indexOf(`--${name}`);
  const value = at < 0 ? fallback : Number(process.argv[at + 1]);
  if (value > 0) return value;
  console.error(`soak: --${name} wants a number above 0`);
  process.exit(2);
};
const minutes = flag("minutes", 20);
const random = new Random(flag("seed", 1));
const clients = flag("clients", 4);
const MAX_TOKENS = 32;
/** Resident memory of this process may grow by that much between the first tenth and the end, bytes. */
const GROWTH = 128 * 2 ** 20;

const subjects = [
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
const prompts = subjects.map(
  (subject) => `Write a sentence about ${subject}, then another one about ${subject}.`,
);
const pick = (count: number): number => Math.min(count - 1, Math.floor(random.next() * count));

const seen = { same: 0, streamed: 0, left: 0, broken: 0, refused: 0, kills: 0 };
const faults: string[] = [];

function body(prompt: string, stream: boolean): object {
  return { prompt, n_predict: MAX_TOKENS, temperature: 0, stream, cache_prompt: false };
}

/** What the engine says without drafts. */
async function references(stack: Stack): Promise<string[]> {
  const texts: string[] = [];
  for (const prompt of prompts) {
    const answer = await stack.direct.post<{ content: string }>("/completion", body(prompt, false), {
      "x-aded": "off",
    });
    texts.push(answer.content);
  }
  return texts;
}

async function one(stack: Stack, wanted: readonly string[]): Promise<void> {
  const which = pick(prompts.length);
  const kind = random.next();
  if (kind < 0.35) {
    const answer = await stack.proxy.send("POST", "/completion", {
      body: JSON.stringify(body(prompts[which], false)),
    });
    if (answer.status !== 200) {
      seen.refused++;
      if (![502, 503].includes(answer.status)) faults.push(`status ${answer.status}: ${answer.body}`);
      await delay(50);
      return;
    }
    const { content } = JSON.parse(answer.body.toString()) as { content: string };
    if (content === wanted[which]) seen.same++;
    else faults.push(`another text for "${prompts[which]}": ${content}`);
    return;
  }
  const leavesAfter = kind < 0.6 ? 1 + pick(MAX_TOKENS) : Number.POSITIVE_INFINITY;
  const stream = await stack.proxy.stream("/completion", body(prompts[which], true));
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
        field === "data" ? (JSON.parse(value) as { content?: string; stop?: boolean; error?: unknown }) : {};
      if (event.error !== undefined || field === "error") error = true;
      text += event.content ?? "";
      complete ||= event.stop === true;
    }
  } catch {
    error = true;
  }
  if (events > leavesAfter) seen.left++;
  else if (complete && text === wanted[which]) seen.streamed++;
  else if (complete) faults.push(`another streamed text for "${prompts[which]}": ${text}`);
  else if (error) seen.broken++;
  else faults.push(`a stream ended without its last event and without an error: ${text}`);
  if (!complete && events <= leavesAfter && !wanted[which].startsWith(text))
    faults.push(`a broken stream held another text: ${text}`);
}

/** Trouble now and then; the engine's supervisor, and the drafter's, have to mend it. */
async function trouble(stack: Stack, until: number): Promise<void> {
  while (Date.now() < until) {
    await delay(5000 + random.next() * 15_000);
    if (Date.now() >= until) return;
    if (random.next() < 0.6) {
      await stack.drafting?.stop();
      stack.drafting?.start();
      continue;
    }
    const { pid, state } = stack.engine.snapshot();
    // a second death within a minute after the first is what the restart policy gives up on, some time
    if (pid === undefined || state !== "ready" || Date.now() - lastKill < 30_000) continue;
    lastKill = Date.now();
    seen.kills++;
    process.kill(pid, "SIGKILL");
  }
}

let lastKill = 0;
const stack = await startStack();
let first = 0;
try {
  const wanted = await references(stack);
  const began = Date.now();
  const until = began + minutes * 60_000;
  const client = async (): Promise<void> => {
    while (Date.now() < until && faults.length < 20) {
      await one(stack, wanted).catch((error: Error) =>
        faults.push(`a request was not answered: ${error.message}`),
      );
      if (first === 0 && Date.now() - began > minutes * 6000) first = process.memoryUsage().rss;
    }
  };
  await Promise.all([trouble(stack, until), ...Array.from({ length: clients }, client)]);
  while (stack.engine.snapshot().state === "restarting") await delay(100);
  const last = await stack.proxy.post<{ content: string }>("/completion", body(prompts[0], false));
  if (last.content !== wanted[0]) faults.push(`another text at the end: ${last.content}`);
  globalThis.gc?.();
  const grown = process.memoryUsage().rss - first;
  if (first > 0 && grown > GROWTH) faults.push(`memory grew by ${Math.round(grown / 2 ** 20)} MiB`);
  console.log(JSON.stringify({ minutes, ...seen, grown_mib: Math.round(grown / 2 ** 20) }));
} finally {
  await stack.stop();
}
for (const fault of faults) console.log(`FAILED ${fault}`);
const passed = seen.same + seen.streamed + seen.left + seen.broken + seen.refused;
console.log(`${passed} passed, ${faults.length} failed`);
process.exit(faults.length === 0 && seen.same + seen.streamed > 0 ? 0 : 1);

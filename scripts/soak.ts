/**
 * `npm run test:soak [-- --minutes 20 --seed 1 --clients 4]`: the whole path, real engine and model, under random load: answers whole and
 * streamed, clients that leave, a drafter's thread that is stopped, an engine that is killed. Every complete text is compared with
 * the engine's own (drafts off); a stream that breaks off must not look complete; memory must not grow. The last line is
 * "N passed, N failed"; status 1 where something failed.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Random } from "../src/drafter/random.ts";
import { startStack } from "../test/e2e/support/stack.ts";
import { MemoryWatch, numberFlag, report, SoakLoad } from "./soak-load.ts";

const MODEL = "test";

const minutes = numberFlag("minutes", 20);
const random = new Random(numberFlag("seed", 1));
const clients = numberFlag("clients", 4);

const stack = await startStack();
const load = new SoakLoad(stack.proxy, random);
let kills = 0;
let lastKill = 0;

/** Trouble now and then; the engine's supervisor, and the drafter's, have to mend it. */
async function trouble(until: number): Promise<void> {
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
    kills++;
    process.kill(pid, "SIGKILL");
  }
}

let status = 1;
try {
  await load.learn(MODEL, stack.direct);
  const began = Date.now();
  const until = began + minutes * 60_000;
  const memory = new MemoryWatch(began + minutes * 6000);
  const client = async (): Promise<void> => {
    while (Date.now() < until && !load.failed) {
      await load.one(MODEL);
      memory.look();
    }
  };
  await Promise.all([trouble(until), ...Array.from({ length: clients }, client)]);
  while (stack.engine.snapshot().state === "restarting") await delay(100);
  await load.last(MODEL);
  status = report(load, memory.grown(), { minutes, kills });
} finally {
  await stack.stop();
}
process.exit(status);

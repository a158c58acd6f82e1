/**
 * Runs a throwaway drafter over made-up text, so that the JIT has compiled the hot paths before the first real step: cold, the first steps take
 * milliseconds each and would come too late for the engine.
 */
import type { EngineInfo } from "./draft.ts";
import { AdedDrafter } from "./drafter.ts";
import type { DrafterOptions } from "./options.ts";
import { Random } from "./random.ts";
import { replay, type Trace } from "./replay.ts";

const WORDS = 60;

/**
 * Takes one or two tenths of a second. Call it once per thread, before the link connects.
 *
 * @param info of the engine, or of one like it: decides what is compiled (trees or chains, top-k)
 * @param steps about how many steps to run. @default 300
 */
export function warmUp(info: EngineInfo, options: DrafterOptions = {}, steps = 300): void {
  const random = new Random(1);
  const k = Math.max(1, Math.min(info.topK, 16));
  const vocab = Math.min(WORDS, info.nVocab);
  const rounds = Math.ceil(steps / 100);
  const traces = Array.from({ length: rounds }, (_, i) => madeUpTrace(`${i}`, 200, k, vocab, random));
  const drafter = new AdedDrafter({ ...info, nSlots: 1 }, { ...options, matrixBytes: 2 ** 22 });
  replay(drafter, traces.slice(0, rounds >> 1));
  replay(drafter, traces.slice(rounds >> 1), { temperature: 0.8 });
}

/** Text that is about half predictable from the token before. */
function madeUpTrace(id: string, length: number, k: number, vocab: number, random: Random): Trace {
  const tokens: number[] = [];
  const ids: number[] = [];
  const probs: number[] = [];
  let token = random.below(vocab);
  for (let i = 0; i < length; i++) {
    const usual = (token * 7 + 3) % vocab;
    token = random.next() < 0.7 ? usual : random.below(vocab);
    tokens.push(token);
    for (let j = 0; j < k; j++) {
      ids.push((token + j * 11) % vocab);
      probs.push(0.5 ** (j + 1));
    }
  }
  return { id, category: "", prompt: [0, 1 % vocab, 2 % vocab], tokens, k, ids, probs };
}

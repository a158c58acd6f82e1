/**
 * Runs a throwaway drafter over made-up text, so that the JIT has compiled the hot paths before the first real step: cold, the first steps take
 * milliseconds each and would come too late for the engine.
 */
import type { EngineInfo } from "../drafter/draft.ts";
import { AdedDrafter } from "../drafter/drafter.ts";
import type { DrafterOptions } from "../drafter/options.ts";
import { Random } from "../drafter/random.ts";
import { replay } from "./replay.ts";
import type { Trace } from "./trace.ts";

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
  const tokens = new Int32Array(length);
  const ids = new Int32Array(length * k);
  const probs = new Float32Array(length * k);
  let token = random.below(vocab);
  for (let i = 0; i < length; i++) {
    const usual = (token * 7 + 3) % vocab;
    token = random.next() < 0.7 ? usual : random.below(vocab);
    tokens[i] = token;
    for (let j = 0; j < k; j++) {
      ids[i * k + j] = (token + j * 11) % vocab;
      probs[i * k + j] = 0.5 ** (j + 1);
    }
  }
  const prompt = Int32Array.of(0, 1 % vocab, 2 % vocab);
  return { id, category: "", temperature: 0, prompt, tokens, k, ids, probs };
}

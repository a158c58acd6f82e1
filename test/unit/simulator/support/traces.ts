/** Made-up traces. */
import type { Trace } from "../../../../src/simulator/trace.ts";

/** A text whose every position has the given rows, or a row that the text's token leads. */
export function textTrace(
  id: string,
  prompt: number[],
  tokens: number[],
  { rows, k = 4, category = "made up", temperature = 0 }: Partial<Omit<Trace, "ids">> & { rows?: number[][] },
): Trace {
  const ids = new Int32Array(tokens.length * k).fill(-1);
  const probs = new Float32Array(tokens.length * k);
  for (const [at, token] of tokens.entries()) {
    const row = rows?.[at] ?? [token, ...Array.from({ length: k - 1 }, (_, j) => 900 + j)];
    for (const [j, successor] of row.slice(0, k).entries()) {
      ids[at * k + j] = successor;
      probs[at * k + j] = 0.5 ** (j + 1);
    }
  }
  return {
    id,
    category,
    temperature,
    prompt: Int32Array.from(prompt),
    tokens: Int32Array.from(tokens),
    k,
    ids,
    probs,
  };
}

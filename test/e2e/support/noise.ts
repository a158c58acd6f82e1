/**
 * How far the log-probabilities of a batch lie from those of single tokens, without any draft: an answer that was decoded token by
 * token is given back as a prompt, which is evaluated as a batch, and both are asked for the next token.
 */
import type { Endpoint } from "./endpoint.ts";
import { type Generated, TOP, type TokenChoice } from "./generate.ts";

interface ProbedCompletion {
  completion_probabilities: { top_logprobs: TokenChoice[] }[];
}

/** Token ids of a chat with one message, as /v1/chat/completions makes them. */
export async function chatTokens(endpoint: Endpoint, content: string): Promise<number[]> {
  const messages = [{ role: "user", content }];
  const { prompt } = await endpoint.post<{ prompt: string }>("/apply-template", { messages });
  const { tokens } = await endpoint.post<{ tokens: number[] }>("/tokenize", {
    content: prompt,
    add_special: true,
    parse_special: true,
  });
  return tokens;
}

/** Largest difference in the log-probabilities of the two likeliest tokens, at `positions` of a plain answer to `content`. */
export async function batchNoise(
  endpoint: Endpoint,
  { content, answer, positions }: { content: string; answer: Generated; positions: readonly number[] },
): Promise<number> {
  const prompt = await chatTokens(endpoint, content);
  let largest = 0;
  for (const at of positions) {
    const body = {
      prompt: [...prompt, ...answer.ids.slice(0, at)],
      n_predict: 1,
      n_probs: TOP,
      temperature: 0,
      cache_prompt: false,
    };
    const { completion_probabilities } = await endpoint.post<ProbedCompletion>("/completion", body, {
      "x-aded": "off",
    });
    const inBatch = new Map(completion_probabilities[0].top_logprobs.map(({ id, logprob }) => [id, logprob]));
    for (const { id, logprob } of answer.top[at].slice(0, 2)) {
      const other = inBatch.get(id);
      if (other !== undefined) largest = Math.max(largest, Math.abs(logprob - other));
    }
  }
  return largest;
}

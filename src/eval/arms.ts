/** Asks one thing in both arms, the first of them decided by chance, and times both: what an evaluation is made of. */
import { type AbSample, measured } from "../bench/ab-sample.ts";
import type { Arm, ChatClient, ChatMessage } from "../bench/chat-client.ts";
import { Random } from "../drafter/random.ts";

export interface Asked {
  id: string;
  category: string;
  group: string;
  /** Given what this arm has said so far in the conversation. */
  messages: readonly ChatMessage[];
  temperature: number;
  topP?: number;
  seed: number;
  maxTokens: number;
  model?: string;
  repeat: number;
}

/** Seeded by what is asked, so that a resumed run has the same order. */
export function armOrder(key: string, seed: number): [Arm, Arm] {
  const sum = [...key].reduce((total, character) => (total * 31 + character.charCodeAt(0)) | 0, seed);
  return new Random(sum).next() < 0.5 ? ["on", "off"] : ["off", "on"];
}

/** @throws AdedError as ChatClient.chat does: an evaluation with holes is none */
export async function ask(
  client: ChatClient,
  asked: Asked,
  { arm, first, startedAt, signal }: { arm: Arm; first: boolean; startedAt: number; signal?: AbortSignal },
): Promise<AbSample> {
  const { id, category, group, messages, temperature, topP, seed, maxTokens, model, repeat } = asked;
  const at = performance.now() - startedAt;
  const request = { text: "", messages, arm, maxTokens, temperature, topP, seed, model };
  const result = await client.chat(request, signal);
  return {
    id,
    category,
    group,
    repeat,
    arm,
    first,
    seed,
    at_ms: Math.round(at * 1000) / 1000,
    ...measured(result),
  };
}

/** Steps of the engine: the prompt's own, and one for every token that was not an accepted draft. */
export function stepsOf({ predicted_n, draft_n_accepted }: AbSample): number {
  return predicted_n - (draft_n_accepted ?? 0);
}

/** Asks a patched engine, directly or through the proxy, what the model says at the nodes of a tree (docs/protocol.md, 2). */
import { Agent, request } from "undici";
import { AdedError, messageOf } from "../errors.ts";
import type { TreeAnswer, VerifyTree } from "../simulator/fill.ts";

interface Response {
  results: { trees: { nodes: { top: { id: number; logprob: number }[] }[] }[] }[];
}

const TIMEOUT_MS = 600_000;

/**
 * A function that asks the server at `url`, and what ends its connections.
 *
 * @param model name of the model, where the server has several
 */
export function treeVerifier(
  url: string,
  { apiKey, model, signal }: { apiKey?: string; model?: string; signal?: AbortSignal } = {},
): { verify: VerifyTree; close(): Promise<void> } {
  const agent = new Agent({ connections: 1, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
  const query = model === undefined ? "" : `?model=${encodeURIComponent(model)}`;
  const target = `${url.replace(/\/+$/, "")}/tree-verify${query}`;
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (apiKey !== undefined) headers.authorization = `Bearer ${apiKey}`;
  const verify: VerifyTree = async (prompt, { tokens, parents }, k) => {
    const body = JSON.stringify({
      prompt: [...prompt],
      trees: [{ tokens: [...tokens], parents: [...parents] }],
      top_k: k,
    });
    const response = await request(target, {
      method: "POST",
      dispatcher: agent,
      headers,
      body,
      signal,
    }).catch((cause: unknown) => {
      throw new AdedError("ADED_ENGINE_UNREACHABLE", `${url} cannot be reached: ${messageOf(cause)}`, {
        hint: "Start a patched engine, or name its address with --verify.",
        cause,
      });
    });
    if (response.statusCode !== 200) {
      const answer = (await response.body.text()).slice(0, 300);
      throw new AdedError("ADED_BENCH", `POST /tree-verify was answered ${response.statusCode}: ${answer}`, {
        hint: "It takes a patched engine with the model that the traces were recorded with, and room for their length.",
      });
    }
    return answerOf((await response.body.json()) as Response, tokens.length, k);
  };
  return { verify, close: () => agent.destroy() };
}

function answerOf(response: Response, n: number, k: number): TreeAnswer {
  const ids = new Int32Array(n * k).fill(-1);
  const probs = new Float32Array(n * k);
  for (const [i, { top }] of response.results[0].trees[0].nodes.entries()) {
    for (const [j, { id, logprob }] of top.slice(0, k).entries()) {
      ids[i * k + j] = id;
      probs[i * k + j] = Math.exp(logprob);
    }
  }
  return { ids, probs };
}

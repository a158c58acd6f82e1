/** Requests for the engine while its draft link is under attack: completions of all kinds, also left early, and /tree-verify. */
import { Agent, request } from "undici";
import type { Random } from "../src/drafter/random.ts";

const WORDS = "the a cat 1 2 3 function return river { } , . same same again list of of the Paris\n".split(
  " ",
);

export interface LoadReport {
  /** Requests by kind and outcome, as "kind status". */
  outcomes: Map<string, number>;
  /** Draft nodes verified, and of these accepted, as the answers' timings say. */
  drafted: number;
  accepted: number;
  /** What should not have come. */
  faults: string[];
}

/** The engine's HTTP side, over its Unix socket. */
export class EngineClient {
  readonly #agent: Agent;

  constructor(socketPath: string) {
    // a connection per request: llama-server closes one after a stream, which the next request would run into
    this.#agent = new Agent({ connect: { socketPath }, headersTimeout: 0, bodyTimeout: 0, pipelining: 0 });
  }

  async post(path: string, body: unknown, signal?: AbortSignal): Promise<{ status: number; text: string }> {
    const { statusCode, body: answer } = await request(`http://engine${path}`, {
      dispatcher: this.#agent,
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    return { status: statusCode, text: await answer.text() };
  }

  async healthy(): Promise<boolean> {
    try {
      const { statusCode, body } = await request("http://engine/health", { dispatcher: this.#agent });
      await body.dump();
      return statusCode === 200;
    } catch {
      return false;
    }
  }

  /** The text of a greedy completion without drafts. */
  async plain(prompt: string): Promise<string> {
    const body = { prompt, n_predict: 24, temperature: 0, cache_prompt: false, "speculative.n_max": 0 };
    const { status, text } = await this.post("/completion", body);
    return status === 200 ? (JSON.parse(text) as { content: string }).content : `status ${status}`;
  }

  close(): Promise<void> {
    return this.#agent.close();
  }
}

/** Sends requests one after the other until the signal; run several for parallel slots. */
export async function load(client: EngineClient, random: Random, signal: AbortSignal): Promise<LoadReport> {
  const report: LoadReport = { outcomes: new Map(), drafted: 0, accepted: 0, faults: [] };
  const count = (name: string): void => void report.outcomes.set(name, (report.outcomes.get(name) ?? 0) + 1);
  while (!signal.aborted) {
    const { kind, path, body, expected, patience } = pick(random);
    try {
      const { status, text } = await client.post(
        path,
        body,
        patience === undefined ? undefined : AbortSignal.timeout(patience),
      );
      count(`${kind} ${status}`);
      report.drafted += Number(/"draft_n":(\d+)/.exec(text)?.[1] ?? 0);
      report.accepted += Number(/"draft_n_accepted":(\d+)/.exec(text)?.[1] ?? 0);
      if (status !== expected) report.faults.push(`${kind}: ${status} ${text.slice(0, 200)}`);
    } catch (error) {
      if (patience === undefined) {
        report.faults.push(`${kind}: ${(error as Error).message}`);
        return report;
      }
      count(`${kind} left`);
    }
  }
  return report;
}

interface Plan {
  kind: string;
  path: string;
  body: object;
  expected: number;
  /** Leave after that many ms. */
  patience?: number;
}

function pick(random: Random): Plan {
  // the same ones again and again: the peer's drafts are then accepted in part
  if (random.next() < 0.4) {
    const prompt = `The ${["cat", "river", "list"][random.below(3)]} is`;
    const body = { prompt, n_predict: 20, temperature: 0, ignore_eos: true };
    return { kind: "repeated", path: "/completion", body, expected: 200 };
  }
  const prompt = Array.from({ length: 4 + random.below(40) }, () => WORDS[random.below(WORDS.length)]).join(
    " ",
  );
  const completion = { prompt, n_predict: 1 + random.below(24) };
  const path = "/completion";
  switch (random.below(8)) {
    case 0:
      return {
        kind: "sampled",
        path,
        body: { ...completion, temperature: 1, seed: 7, n_probs: 3 },
        expected: 200,
      };
    case 1:
      return {
        kind: "grammar",
        path,
        body: { ...completion, grammar: 'root ::= ("a" | "b")+' },
        expected: 200,
      };
    case 2:
      return {
        kind: "streamed",
        path,
        body: { ...completion, stream: true, n_predict: 60 },
        expected: 200,
        patience: 500 + random.below(8000),
      };
    case 3:
      return {
        kind: "tree",
        path: "/tree-verify",
        body: { prompt, trees: goodTrees(random), top_k: random.below(9) },
        expected: 200,
      };
    case 4:
      return {
        kind: "wrong tree",
        path: "/tree-verify",
        body: { prompt, trees: [{ tokens: [1, 2], parents: [1, random.below(3) - 5] }] },
        expected: 400,
      };
    case 5:
      return { kind: "stop", path, body: { ...completion, stop: ["e"], temperature: 0 }, expected: 200 };
    default:
      return { kind: "greedy", path, body: { ...completion, temperature: 0 }, expected: 200 };
  }
}

function goodTrees(random: Random): { tokens: number[]; parents: number[] }[] {
  return Array.from({ length: 1 + random.below(3) }, () => {
    const n = random.below(13);
    return {
      tokens: Array.from({ length: n }, () => random.below(1000)),
      parents: Array.from({ length: n }, (_, i) => random.below(i + 1) - 1),
    };
  });
}

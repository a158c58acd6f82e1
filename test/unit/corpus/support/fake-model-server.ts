/**
 * A server that answers as llama-server does, over real sockets, with a made-up model: what follows two tokens is a function of them.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Successor {
  id: number;
  prob: number;
}

/** The likeliest tokens after (a, b), the likeliest first. */
export function successors(a: number, b: number, k: number): Successor[] {
  const shares = [0.6, 0.25, 0.1, 0.04].slice(0, k);
  return shares.map((prob, rank) => ({ id: (a * 7 + b * 3 + rank * 5) % 50, prob }));
}

/** Token ids of a prompt: the letters' codes, modulo the vocabulary. */
export function promptTokens(text: string): number[] {
  return [...`<${text}>`].map((letter) => letter.charCodeAt(0) % 50);
}

export class FakeModelServer {
  readonly #server: Server;
  /** Requests of others that the status tells of. */
  others = 0;
  /** Completions asked for so far, and of these the ones that were broken off. */
  asked = 0;
  left = 0;
  /** Called before each token is sent. */
  onToken: () => Promise<void> | void = () => {};
  #running = 0;

  constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body =
      parts.length > 0 ? (JSON.parse(Buffer.concat(parts).toString()) as Record<string, unknown>) : {};
    const json = (value: unknown): void => void response.end(JSON.stringify(value));
    switch (request.url) {
      case "/aded/status":
        return json({ running: this.#running + this.others });
      case "/props":
        return json({ model_path: "/nowhere/fake.gguf" });
      case "/apply-template":
        return json({ prompt: `u${(body.messages as { content: string }[])[0].content}a` });
      case "/tokenize":
        return json({ tokens: promptTokens(body.content as string) });
      case "/completion":
        return this.#complete(body, request, response);
      default:
        response.statusCode = 404;
        return json({});
    }
  }

  async #complete(
    body: Record<string, unknown>,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    if ((body.n_predict as number) < 0) {
      response.statusCode = 400;
      response.end(JSON.stringify({ error: { message: "bad" } }));
      return;
    }
    this.asked++;
    this.#running++;
    let gone = false;
    let finished = false;
    request.socket.once("close", () => {
      gone = true;
      if (!finished) this.left++;
    });
    const tokens = [...(body.prompt as number[])];
    for (let i = 0; i < (body.n_predict as number) && !gone; i++) {
      await this.onToken();
      const top = successors(tokens[tokens.length - 2], tokens[tokens.length - 1], body.n_probs as number);
      tokens.push(top[0].id);
      const top_logprobs = top.map(({ id, prob }) => ({ id, logprob: Math.log(prob) }));
      const event = { tokens: [top[0].id], completion_probabilities: [{ id: top[0].id, top_logprobs }] };
      response.write(`data: ${JSON.stringify(event)}\n\n`);
    }
    this.#running--;
    finished = true;
    response.end(`data: ${JSON.stringify({ stop: true })}\n\n`);
  }
}

/** An OpenAI-style streaming server for tests; what it answers is decided per request. Times are told, not waited for. */
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface SeenRequest {
  headers: IncomingHttpHeaders;
  body: Record<string, unknown>;
  prompt: string;
  arm: string;
}

export interface Answer {
  /** One event each. @default ["Hello", ", ", "world"] */
  pieces?: string[];
  /** Events with reasoning text ahead of them. */
  reasoning?: string[];
  /** One JSON body instead of a stream. */
  whole?: boolean;
  status?: number;
  /** undefined: no header. */
  armHeader?: string;
  /** undefined: no timings. */
  timings?: Record<string, number>;
  finish?: string;
  /** The connection is cut after the pieces. */
  cut?: boolean;
  /** An error event after the pieces. */
  error?: object;
  /** Resolves before the answer begins. */
  after?: Promise<unknown>;
}

export class FakeServer {
  readonly seen: SeenRequest[] = [];
  /** Requests being answered now, and the most at any time, with the arms that were then served together. */
  mostAtOnce = 0;
  mixedArms = false;
  props: object | undefined = { build_info: "b1-test", model_alias: "toy", total_slots: 1 };
  answer: (request: SeenRequest) => Answer = () => ({});
  #arms: string[] = [];
  #server: Server | undefined;

  async listen(): Promise<string> {
    const server = createServer((incoming, response) => {
      if (incoming.method === "GET") {
        const found = incoming.url?.startsWith("/props") === true && this.props !== undefined;
        response.writeHead(found ? 200 : 404, { "content-type": "application/json" });
        response.end(JSON.stringify(found ? this.props : { error: { code: 404 } }));
        return;
      }
      let text = "";
      incoming.setEncoding("utf8");
      incoming.on("data", (chunk: string) => {
        text += chunk;
      });
      incoming.on("end", () => {
        const body = JSON.parse(text) as Record<string, unknown>;
        const messages = body.messages as { content: string }[];
        const arm = String(incoming.headers["x-aded"]);
        const request = { headers: incoming.headers, body, prompt: messages[0].content, arm };
        this.seen.push(request);
        this.#arms.push(arm);
        this.mostAtOnce = Math.max(this.mostAtOnce, this.#arms.length);
        this.mixedArms ||= new Set(this.#arms).size > 1;
        response.on("close", () => this.#arms.splice(this.#arms.indexOf(arm), 1));
        void this.#stream(this.answer(request), response);
      });
    });
    this.#server = server;
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }

  async #stream(answer: Answer, response: ServerResponse): Promise<void> {
    await answer.after;
    const arm = answer.armHeader === undefined ? {} : { "x-aded-arm": answer.armHeader };
    if (answer.status !== undefined) {
      response.writeHead(answer.status, { "content-type": "application/json", ...arm });
      response.end(JSON.stringify({ error: { message: "told to fail" } }));
      return;
    }
    const pieces = answer.pieces ?? ["Hello", ", ", "world"];
    if (answer.whole === true) {
      response.writeHead(200, { "content-type": "application/json", ...arm });
      const message = { role: "assistant", content: pieces.join("") };
      const choices = [{ finish_reason: answer.finish ?? "stop", message }];
      response.end(JSON.stringify({ choices, timings: answer.timings }));
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream", ...arm });
    const send = (event: object): boolean => response.write(`data: ${JSON.stringify(event)}\n\n`);
    send({ choices: [{ finish_reason: null, delta: { role: "assistant", content: null } }] });
    for (const piece of answer.reasoning ?? []) {
      send({ choices: [{ finish_reason: null, delta: { reasoning_content: piece } }] });
    }
    for (const piece of pieces) {
      send({ choices: [{ finish_reason: null, delta: { content: piece } }] });
    }
    if (answer.error !== undefined) send({ error: answer.error });
    if (answer.cut === true) {
      response.write("", () => response.destroy());
      return;
    }
    const finish = answer.finish ?? "stop";
    send({ choices: [{ finish_reason: finish, delta: {} }], timings: answer.timings });
    response.end("data: [DONE]\n\n");
  }
}

/** llama-server's timings for n tokens that took `ms`, with drafts if named. */
export function timings(n: number, ms: number, drafts: Record<string, number> = {}): Record<string, number> {
  return { cache_n: 0, prompt_n: 5, prompt_ms: 3, predicted_n: n, predicted_ms: ms, ...drafts };
}

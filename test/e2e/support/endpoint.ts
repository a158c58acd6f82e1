/** Speaks HTTP to the proxy or straight to the engine: JSON calls, and streams of server-sent events. Each request has a connection of its own. */
import { once } from "node:events";
import { type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, request } from "node:http";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  /** Names and values as they came, in their order. */
  rawHeaders: string[];
  body: Buffer;
}

export interface EventStream {
  status: number;
  headers: IncomingHttpHeaders;
  /** What the events held, in their order; ends with the stream. @throws when the connection breaks before the body's end */
  events: AsyncGenerator<StreamEvent>;
  /** Breaks the connection off. */
  abort(): void;
}

export interface StreamEvent {
  /** Field name: "data", "error", "event" … */
  field: string;
  value: string;
}

export class Endpoint {
  readonly #target: { socketPath: string } | { host: string; port: number };

  /** @param address http://HOST:PORT, or the path of a Unix socket */
  constructor(address: string) {
    if (address.startsWith("/")) this.#target = { socketPath: address };
    else {
      const { hostname, port } = new URL(address);
      this.#target = { host: hostname, port: Number(port) };
    }
  }

  /** Any request; the answer whole. */
  async send(
    method: string,
    path: string,
    options: { body?: string | Buffer; headers?: Record<string, string> } = {},
  ): Promise<Answer> {
    const { response } = await this.#open(method, path, options);
    const parts: Buffer[] = [];
    for await (const part of response) parts.push(part as Buffer);
    const { statusCode = 0, headers, rawHeaders } = response;
    return { status: statusCode, headers, rawHeaders, body: Buffer.concat(parts) };
  }

  /** POST of JSON; the answer's JSON. @throws when the status is not 200 */
  async post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
    const answer = await this.send("POST", path, { body: JSON.stringify(body), headers });
    if (answer.status !== 200) throw new Error(`${path} answers ${answer.status}: ${answer.body.toString()}`);
    return JSON.parse(answer.body.toString()) as T;
  }

  /** GET of JSON. @throws when the status is not 200 */
  async get<T>(path: string): Promise<T> {
    const answer = await this.send("GET", path);
    if (answer.status !== 200) throw new Error(`${path} answers ${answer.status}: ${answer.body.toString()}`);
    return JSON.parse(answer.body.toString()) as T;
  }

  /** POST of JSON whose answer is an event stream. */
  async stream(path: string, body: unknown, headers: Record<string, string> = {}): Promise<EventStream> {
    const { outgoing, response } = await this.#open("POST", path, { body: JSON.stringify(body), headers });
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      events: readEvents(response),
      abort: () => outgoing.destroy(),
    };
  }

  /** A request that was sent, for whoever wants to break it off before it is answered. */
  begin(
    method: string,
    path: string,
    body?: string | Buffer,
    headers: Record<string, string> = {},
  ): ClientRequest {
    const outgoing = request({
      ...this.#target,
      method,
      path,
      agent: false,
      headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
    });
    outgoing.end(body);
    // a connection that breaks shows where the answer is awaited or read
    outgoing.on("error", () => {});
    return outgoing;
  }

  async #open(
    method: string,
    path: string,
    { body, headers }: { body?: string | Buffer; headers?: Record<string, string> },
  ): Promise<{ outgoing: ClientRequest; response: IncomingMessage }> {
    const outgoing = this.begin(method, path, body, headers);
    const [response] = (await once(outgoing, "response")) as [IncomingMessage];
    return { outgoing, response };
  }
}

async function* readEvents(response: IncomingMessage): AsyncGenerator<StreamEvent> {
  let rest = "";
  response.setEncoding("utf8");
  for await (const text of response) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const at = line.indexOf(":");
      if (at > 0) yield { field: line.slice(0, at), value: line.slice(at + 1).trim() };
    }
  }
}

/**
 * Everything that is no generation route goes through http-proxy-middleware: it pipes the request, unparsed, to the
 * engine. What it would change on the way (letter case and order of headers, repeated headers, slashes in the path) is put
 * back from the wire form, and the answer is passed on by the relay: left alone, http-proxy-middleware ends an answer that broke off
 * as if it were complete.
 */
import { type ClientRequest, Agent as HttpAgent, type IncomingMessage, type ServerResponse } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { createProxyMiddleware, type RequestHandler } from "http-proxy-middleware";
import type { Engine } from "../engine/engine.ts";
import { hasBody } from "./body.ts";
import { engineFault } from "./faults.ts";
import { pairs, requestHeaders } from "./headers.ts";
import type { Relay } from "./relay.ts";
import { hostOf, targetOf } from "./target.ts";

/** Idle connections are given up before llama-server closes them (after 5 s): a request must not meet the closing. */
const AGENT = { keepAlive: true, scheduling: "lifo", timeout: 2000 } as const;

const NOTHING = Buffer.alloc(0);

type Protocol = "http:" | "https:";

interface Passing {
  engine: Engine;
  relay: Relay;
  scope: string;
}

export class Passthrough {
  readonly #agents = { "http:": new HttpAgent(AGENT), "https:": new HttpsAgent(AGENT) };
  readonly #passing = new WeakMap<IncomingMessage, Passing>();
  readonly #middleware = { "http:": this.#create("http:"), "https:": this.#create("https:") };

  #create(protocol: Protocol): RequestHandler {
    return createProxyMiddleware({
      target: "http://engine.invalid", // replaced by the router for every request
      router: (request: IncomingMessage) => targetOf(this.#of(request).engine.address),
      pathFilter: () => true,
      toProxy: true,
      agent: this.#agents[protocol],
      selfHandleResponse: true,
      // The usual plugins answer errors with a text of their own, also in the middle of an answer.
      ejectPlugins: true,
      plugins: [
        (proxy) => {
          proxy.on("proxyReq", (outgoing, request) => this.#sending(outgoing, request));
          proxy.on("proxyRes", (incoming, request) => this.#answering(incoming, request));
          proxy.on("error", (error, request) => this.#failing(error, request));
        },
      ],
    });
  }

  /** Passes the request on; everything that follows happens through `relay`. */
  pass(request: IncomingMessage, response: ServerResponse, passing: Passing): void {
    this.#passing.set(request, passing);
    const failed = (error: unknown): void => passing.relay.fail(engineFault(passing.engine.model, error));
    const protocol = passing.engine.address.origin.startsWith("https:") ? "https:" : "http:";
    this.#middleware[protocol](request, response, failed).catch(failed);
  }

  close(): void {
    for (const agent of Object.values(this.#agents)) agent.destroy();
  }

  #of(request: IncomingMessage): Passing {
    const passing = this.#passing.get(request);
    if (passing === undefined) throw new Error("a request came to the middleware by another way");
    return passing;
  }

  /** Before the first byte is sent: target and headers as the client sent them. */
  #sending(outgoing: ClientRequest, request: IncomingMessage): void {
    const { relay, scope, engine } = this.#of(request);
    const headers = requestHeaders(request.rawHeaders, {
      scope,
      authorization: engine.authorization,
      host: hostOf(engine.address),
    });
    outgoing.path = request.url ?? "/";
    for (const name of outgoing.getHeaderNames()) outgoing.removeHeader(name);
    const repeated = new Map<string, string[]>();
    for (const [name, value] of pairs(headers)) {
      const key = name.toLowerCase();
      const values = [...(repeated.get(key) ?? []), value];
      repeated.set(key, values);
      outgoing.setHeader(name, values.length === 1 ? value : values);
    }
    outgoing.on("information", ({ statusCode, rawHeaders }) => relay.information(statusCode, rawHeaders));
    // Before the pipe ends the outgoing request.
    request.prependListener("end", () => {
      if (request.rawTrailers.length > 0) outgoing.addTrailers(pairs(request.rawTrailers));
    });
    relay.attach({ abort: () => outgoing.destroy(), resume: () => undefined });
    // The engine should see the headers of an upload at once: it may refuse it by them.
    if (hasBody(request) && !relay.done) outgoing.write(NOTHING);
  }

  #answering(incoming: IncomingMessage, request: IncomingMessage): void {
    const { relay, engine } = this.#of(request);
    relay.attach({ abort: () => incoming.destroy(), resume: () => incoming.resume() });
    if (relay.done) return;
    relay.start(incoming.statusCode ?? 502, incoming.statusMessage ?? "", incoming.rawHeaders);
    incoming.on("data", (chunk: Buffer) => {
      if (!relay.write(chunk.toString("latin1"))) incoming.pause();
    });
    incoming.on("end", () => {
      if (incoming.complete) relay.end(incoming.rawTrailers);
    });
    incoming.on("error", (error) => relay.fail(engineFault(engine.model, error)));
    incoming.on("close", () => {
      if (!incoming.complete) relay.fail(engineFault(engine.model, new Error("the connection was closed")));
    });
  }

  #failing(error: Error, request: IncomingMessage): void {
    const { relay, engine } = this.#of(request);
    relay.fail(engineFault(engine.model, error));
  }
}

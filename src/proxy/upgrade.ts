/**
 * WebSocket handshakes. Only an answer of 101 opens a tunnel; any other is passed on like that of a common request, so that
 * nothing more can be sent to the engine past the proxy's checks.
 */
import {
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  ServerResponse,
} from "node:http";
import { request as httpsRequest } from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Engine } from "../engine/engine.ts";
import type { Connections, Exchange } from "./connections.ts";
import { engineFault } from "./faults.ts";
import { pairs, requestHeaders } from "./headers.ts";
import type { Relay } from "./relay.ts";
import { hostOf, targetOf } from "./target.ts";

/** True when these headers ask for a WebSocket; `Upgrade: h2c` and others are ignored, as the engine does. */
export function asksForWebSocket(headers: IncomingHttpHeaders): boolean {
  return headers.upgrade?.trim().toLowerCase() === "websocket";
}

/** The response object for a request that Node has handed over with its bare socket. */
export function responseOn(request: IncomingMessage, socket: Socket): ServerResponse {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.on("finish", () => socket.destroySoon());
  socket.on("error", () => socket.destroy());
  return response;
}

/** Sends the handshake to the engine; `head` is what the client sent right after it. */
export function passUpgrade(
  engine: Engine,
  relay: Relay,
  options: { socket: Socket; head: Buffer; scope: string; connections: Connections },
): void {
  const { request } = relay;
  const { protocol, host, port, socketPath } = targetOf(engine.address);
  const outgoing = (protocol === "https:" ? httpsRequest : httpRequest)({
    agent: false,
    host,
    port,
    socketPath,
    method: request.method,
    path: request.url,
    headers: requestHeaders(request.rawHeaders, {
      scope: options.scope,
      authorization: engine.authorization,
      upgrade: true,
      host: hostOf(engine.address),
    }),
  });
  relay.attach({ abort: () => outgoing.destroy(), resume: () => undefined });
  outgoing.on("error", (error) => relay.fail(engineFault(engine.model, error)));
  outgoing.on("response", (answer) => {
    relay.attach({ abort: () => answer.destroy(), resume: () => answer.resume() });
    relay.start(answer.statusCode ?? 502, answer.statusMessage ?? "", answer.rawHeaders);
    answer.on("data", (chunk: Buffer) => {
      if (!relay.write(chunk.toString("latin1"))) answer.pause();
    });
    answer.on("end", () => relay.end(answer.rawTrailers));
    answer.on("error", (error) => relay.fail(engineFault(engine.model, error)));
  });
  outgoing.on("upgrade", (answer, engineSocket, engineHead) => {
    if (relay.done) {
      engineSocket.destroy();
      return;
    }
    relay.handOver();
    relay.response.detachSocket(options.socket);
    const line = `HTTP/1.1 101 ${answer.statusMessage ?? "Switching Protocols"}\r\n`;
    const fields = pairs(answer.rawHeaders).map(([name, value]) => `${name}: ${value}\r\n`);
    options.socket.write(`${line}${fields.join("")}\r\n`, "latin1");
    options.socket.write(engineHead);
    engineSocket.write(options.head);
    tunnel(options.socket, engineSocket, options.connections);
  });
  outgoing.end();
}

/** Joins the two sockets until both sides are done, or one breaks. */
function tunnel(client: Socket, engine: Duplex, connections: Connections): void {
  const exchange: Exchange = {
    clientGone: () => engine.destroy(),
    shutDown: () => {
      client.destroy();
      engine.destroy();
    },
  };
  connections.markTunnel(client);
  connections.begin(client, exchange);
  client.setTimeout(0);
  client.setNoDelay(true);
  engine.on("error", () => client.destroy());
  engine.on("close", () => client.destroySoon());
  client.pipe(engine);
  engine.pipe(client);
}

/** Models by hand: `/aded/models` lists, loads and unloads them, and shows what their engines print. */
import express, { type Request, type Response, type Router } from "express";
import type { Engine } from "../engine/engine.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { GateStatus, ModelGate } from "../swap/gate.ts";

/** What an engine printed: the last lines, and further ones as they come. */
export interface EngineOutput {
  tail(count?: number): string[];
  follow(reader: (line: string) => void): () => void;
}

export interface ModelSource extends ModelGate {
  readonly engines: readonly Engine[];
  logOf(model: string): EngineOutput | undefined;
}

/** A slow reader of the log is left behind rather than kept in memory, bytes. */
const MAX_BEHIND = 1 << 20;

function describe(engine: Engine, status: GateStatus | undefined): unknown {
  const { state, pid, kind, restarts, reason } = engine.snapshot();
  return {
    id: engine.model,
    state,
    pid: pid ?? null,
    kind: kind ?? null,
    restarts,
    running: status?.running ?? 0,
    waiting: status?.waiting ?? 0,
    starts: status?.starts ?? 0,
    reason: reason ?? status?.error ?? status?.note,
  };
}

function problem(response: Response, status: number, code: string, message: string): void {
  const type = status === 404 ? "not_found_error" : status < 500 ? "invalid_request_error" : "server_error";
  response.status(status).json({ error: { message, type, code } });
}

/** The routes below /aded/; keys, hosts and origins are checked before them. */
export function modelRoutes(models: ModelSource): Router {
  const routes = express.Router({ caseSensitive: true });
  const find = (request: Request, response: Response): Engine | undefined => {
    const name = String(request.params.model);
    const engine = models.engines.find(({ model }) => model === name);
    if (engine === undefined) {
      problem(response, 404, "model_not_found", `There is no model '${name}' here; see /aded/models`);
    }
    return engine;
  };
  const report = (engine: Engine): unknown => describe(engine, models.status(engine.model));
  routes.get("/models", (_request, response) => {
    response.set("Cache-Control", "no-store").json({ models: models.engines.map(report) });
  });
  routes.get("/models/:model", (request, response) => {
    const engine = find(request, response);
    if (engine !== undefined) response.set("Cache-Control", "no-store").json(report(engine));
  });
  for (const action of ["load", "unload"] as const) {
    routes.post(`/models/:model/${action}`, async (request, response) => {
      const engine = find(request, response);
      if (engine === undefined) return;
      try {
        await models[action](engine.model);
        response.json(report(engine));
      } catch (error) {
        const code = error instanceof AdedError ? error.code : "ADED_ENGINE_START";
        problem(response, 503, code, messageOf(error));
      }
    });
  }
  routes.get("/models/:model/logs", (request, response) => {
    const engine = find(request, response);
    const output = engine && models.logOf(engine.model);
    if (output === undefined) return;
    const count = Number(request.query.lines ?? 200);
    if (!Number.isInteger(count) || count < 0 || count > 10_000) {
      problem(response, 400, "invalid_lines", `lines is '${String(request.query.lines)}'; give 0 to 10000`);
      return;
    }
    const last = count === 0 ? [] : output.tail(count);
    response.set("Cache-Control", "no-store");
    if (request.query.follow === "1") follow(response, output, last);
    else response.type("text/plain").send(last.map((line) => `${line}\n`).join(""));
  });
  return routes;
}

/** Server-sent events, one line each, until the reader leaves. */
function follow(response: Response, output: EngineOutput, last: readonly string[]): void {
  response.type("text/event-stream");
  const send = (line: string): void => {
    if (response.writableLength > MAX_BEHIND) response.destroy();
    else response.write(`data: ${line.replace(/\r/g, "")}\n\n`);
  };
  response.flushHeaders();
  for (const line of last) send(line);
  response.on("close", output.follow(send));
}

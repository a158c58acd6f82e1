/**
 * What the proxy answers when it cannot pass on an answer: HTTP status and a body in the shape that OpenAI's and
 * llama-server's clients know. One place for all of them.
 */
import type { EngineSnapshot } from "../engine/engine.ts";
import { messageOf } from "../errors.ts";
import type { Refusal } from "../swap/scheduler.ts";

export interface ErrorBody {
  error: { message: string; type: string; code: string | number; param?: string };
}

export interface Fault {
  status: number;
  body: ErrorBody;
  /** Seconds for a `Retry-After` header. */
  retryAfterS?: number;
  /** Short name for the metrics. */
  kind: string;
}

function fault(
  status: number,
  type: string,
  code: string | number,
  message: string,
  kind = String(code),
): Fault {
  return { status, body: { error: { message, type, code } }, kind };
}

/** 400 and its kin: the request cannot be served as it is. */
export function badRequest(message: string, code: string, status = 400): Fault {
  return fault(status, "invalid_request_error", code, message);
}

/** llama-server's own answer to a wrong key, word for word. */
export function unauthorized(): Fault {
  return fault(401, "authentication_error", 401, "Invalid API Key", "unauthorized");
}

export function forbidden(message: string, code: string): Fault {
  return fault(403, "permission_error", code, message);
}

export function notFound(path: string): Fault {
  return fault(404, "not_found_error", 404, `There is no ${path} here; see /aded/status`, "not_found");
}

export function modelNotFound(model: string, known: readonly string[]): Fault {
  return fault(
    404,
    "invalid_request_error",
    "model_not_found",
    `The model '${model}' does not exist; this server has: ${known.join(", ")}`,
  );
}

export function bodyTooLarge(limit: number): Fault {
  return fault(
    413,
    "invalid_request_error",
    "request_too_large",
    `The request body is larger than the limit of ${limit} bytes; raise the proxy's body limit or send less`,
  );
}

/** The proxy is going down; a client may try again soon. */
export function draining(): Fault {
  return {
    ...fault(503, "unavailable_error", 503, "The server is shutting down", "draining"),
    retryAfterS: 2,
  };
}

/** Why an engine in this state takes no request; undefined when it is ready. */
export function stateFault(snapshot: EngineSnapshot): Fault | undefined {
  const because = snapshot.reason === undefined ? "" : `: ${snapshot.reason}`;
  switch (snapshot.state) {
    case "ready":
      return undefined;
    case "starting":
      return { ...fault(503, "unavailable_error", 503, "Loading model", "starting"), retryAfterS: 1 };
    case "restarting":
      return {
        ...fault(503, "unavailable_error", 503, `The engine is being restarted${because}`, "restarting"),
        retryAfterS: 2,
      };
    case "stopping":
    case "stopped":
      return fault(503, "unavailable_error", 503, `The engine is stopped${because}`, "stopped");
    case "failed":
      return fault(
        503,
        "unavailable_error",
        503,
        `The engine failed and is not tried again${because}; see 'aded doctor' and the log`,
        "failed",
      );
  }
}

/** The engine sent no response headers within the configured time. */
export function engineTimeout(model: string, ms: number): Fault {
  return fault(
    504,
    "server_error",
    "engine_timeout",
    `The engine of model '${model}' did not answer within ${ms} ms`,
  );
}

/** The engine's answer can't go on in the event stream that the client has already. */
export function badAnswer(model: string, status: number): Fault {
  return fault(
    502,
    "server_error",
    "engine_refused",
    `The engine of model '${model}' answered with status ${status} and no event stream; ask without x-aded-progress to see its answer`,
  );
}

/** Why a request did not get to its model. */
export function refusalFault(model: string, refusal: Refusal): Fault {
  const retryAfterS = "retryMs" in refusal ? Math.max(1, Math.ceil(refusal.retryMs / 1000)) : undefined;
  switch (refusal.kind) {
    case "queue-full":
      return {
        ...fault(
          429,
          "rate_limit_error",
          "queue_full",
          `${refusal.waiting} requests wait already; try again later`,
        ),
        retryAfterS,
      };
    case "queue-timeout":
      return {
        ...fault(
          503,
          "unavailable_error",
          "queue_timeout",
          `The model '${model}' was not free within ${Math.round(refusal.waitedMs / 1000)} s (it is ${refusal.phase}); try again later`,
        ),
        retryAfterS,
      };
    case "start-failed":
      return {
        ...fault(
          503,
          "unavailable_error",
          "model_not_started",
          `The model '${model}' could not be started: ${refusal.error}`,
        ),
        retryAfterS,
      };
    case "removed":
      return fault(
        404,
        "invalid_request_error",
        "model_not_found",
        `The model '${model}' is not served any more`,
      );
  }
}

/** Codes of errors that mean: there was nobody to talk to. */
const REFUSED = new Set([
  "ECONNREFUSED",
  "ENOENT",
  "EACCES",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
]);
const TIMED_OUT = new Set(["UND_ERR_CONNECT_TIMEOUT", "UND_ERR_HEADERS_TIMEOUT", "ETIMEDOUT"]);

/** A fault on the way to or from the engine, from the error of the HTTP client. */
export function engineFault(model: string, error: unknown): Fault {
  const code = (error as { code?: unknown } | null)?.code;
  const detail = typeof code === "string" ? `${code}: ${messageOf(error)}` : messageOf(error);
  if (typeof code === "string" && TIMED_OUT.has(code)) {
    return fault(
      504,
      "server_error",
      "engine_timeout",
      `The engine of model '${model}' did not answer (${detail})`,
    );
  }
  if (typeof code === "string" && REFUSED.has(code)) {
    return fault(
      502,
      "server_error",
      "engine_unreachable",
      `The engine of model '${model}' cannot be reached (${detail}); see /aded/status`,
    );
  }
  return fault(
    502,
    "server_error",
    "engine_died",
    `The connection to the engine of model '${model}' broke before its answer was complete (${detail})`,
  );
}

/** The table of the engine's routes that the proxy treats on its own account; every other one passes through. */
import type { StreamDialect } from "./sse.ts";

export type RouteKind =
  /** Generates text: buffered, carries an arm. */
  | "generate"
  /** Names a model in its body: buffered only where several models are served. */
  | "by-model";

export interface Route {
  kind: RouteKind;
  /** Label in the metrics; also the path without aliases. */
  name: string;
  dialect: StreamDialect;
}

function generate(name: string, dialect: StreamDialect = "openai"): Route {
  return { kind: "generate", name, dialect };
}

function byModel(name: string): Route {
  return { kind: "by-model", name, dialect: "openai" };
}

const chat = generate("/v1/chat/completions");
const responses = generate("/v1/responses");
const completion = generate("/completion");
const embeddings = byModel("/v1/embeddings");
const rerank = byModel("/v1/rerank");
const chatTokens = byModel("/v1/chat/completions/input_tokens");
const responsesTokens = byModel("/v1/responses/input_tokens");

/** llama-server's POST routes, with their aliases. */
const POST_ROUTES = new Map<string, Route>([
  ["/v1/chat/completions", chat],
  ["/chat/completions", chat],
  ["/v1/completions", generate("/v1/completions")],
  ["/completions", completion],
  ["/completion", completion],
  ["/v1/responses", responses],
  ["/responses", responses],
  ["/v1/messages", generate("/v1/messages", "anthropic")],
  ["/infill", generate("/infill")],
  ["/v1/embeddings", embeddings],
  ["/embeddings", embeddings],
  ["/embedding", embeddings],
  ["/v1/rerank", rerank],
  ["/v1/reranking", rerank],
  ["/rerank", rerank],
  ["/reranking", rerank],
  ["/v1/chat/completions/input_tokens", chatTokens],
  ["/chat/completions/input_tokens", chatTokens],
  ["/v1/responses/input_tokens", responsesTokens],
  ["/responses/input_tokens", responsesTokens],
  ["/v1/messages/count_tokens", byModel("/v1/messages/count_tokens")],
  ["/tokenize", byModel("/tokenize")],
  ["/detokenize", byModel("/detokenize")],
  ["/apply-template", byModel("/apply-template")],
  ["/tree-verify", byModel("/tree-verify")],
]);

/** Answered without a key, as llama-server does: health, and what its web page needs before one can be typed in. */
const PUBLIC_PATHS = new Set([
  ...["/health", "/v1/health", "/livez", "/readyz", "/", "/index.html", "/sw.js"],
  ...["/aded/", "/aded/dashboard.js", "/aded/dashboard.css"],
]);
const PUBLIC_ASSET = /^\/(_app\/|favicon|pwa-|apple-|bundle\.|manifest\.webmanifest$|build\.json$)/;

/** The path of a request target, without query, as sent. */
export function rawPath(target: string): string {
  const query = target.indexOf("?");
  return query < 0 ? target : target.slice(0, query);
}

/** The engine's route for this request; undefined: pass it through. The engine decodes `%xx` before it routes. */
export function findRoute(method: string | undefined, path: string): Route | undefined {
  if (method !== "POST") return undefined;
  const route = POST_ROUTES.get(path);
  if (route !== undefined || !path.includes("%")) return route;
  try {
    return POST_ROUTES.get(decodeURIComponent(path));
  } catch {
    return undefined;
  }
}

/** True when the request needs no key. Only exact, undecoded paths count. A CORS preflight cannot carry a key. */
export function isPublic(method: string | undefined, path: string): boolean {
  if (method === "OPTIONS") return true;
  if (method !== "GET" && method !== "HEAD") return false;
  return PUBLIC_PATHS.has(path) || (PUBLIC_ASSET.test(path) && !/\.\.|%/.test(path));
}

/** True for `GET /v1/models` and its alias. */
export function isModelList(method: string | undefined, path: string): boolean {
  return (method === "GET" || method === "HEAD") && (path === "/v1/models" || path === "/models");
}

/** True for `GET /health` and its alias. */
export function isHealth(method: string | undefined, path: string): boolean {
  return (method === "GET" || method === "HEAD") && (path === "/health" || path === "/v1/health");
}

/** True for the paths that the proxy itself answers. */
export function isOwn(path: string): boolean {
  return path.startsWith("/aded/") || path === "/livez" || path === "/readyz";
}

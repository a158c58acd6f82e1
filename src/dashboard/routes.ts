/**
 * The dashboard under /aded/: one page, its script and style, the verified steps as they come (of the caller's own requests
 * only: a scope's texts are for its key), and the last lines of the log. Everything is served from here; the page may load nothing else.
 */
import express, { type Response, type Router } from "express";
import type { EngineAddress } from "../engine/engine.ts";
import type { WatchedStep } from "../link/watch.ts";
import type { RecentLines } from "../log.ts";
import { ownScopes } from "../proxy/own-scope.ts";
import { pageScript, pageStyle } from "./bundle.ts";
import { TokenTexts } from "./token-text.ts";

export interface DashboardSources {
  /** Calls the listener with what each step of a model verified. @returns ends that; undefined: no drafter */
  watch(model: string, listener: (steps: WatchedStep[]) => void): (() => void) | undefined;
  address(model: string): EngineAddress | undefined;
  lines: RecentLines;
}

/** One step of a request as the page shows it. */
export interface ShownStep {
  id: number;
  slot: number;
  /** Nodes of the verified tree, the root first; `parent` is an index, -1 for the root. */
  nodes: { text: string; parent: number; accepted: boolean }[];
  /** The token that the model put after the last accepted node. */
  next: string;
  us: number;
}

/** Nothing from elsewhere, nothing inline. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ADED</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="dashboard.css">
<script src="dashboard.js" defer></script>
</head>
<body>
<header><h1>ADED</h1><p id="summary" class="soft" role="status">Connecting …</p></header>
<main id="main"><noscript><p>This page needs JavaScript; the same figures are in <a href="status">/aded/status</a>.</p></noscript></main>
</body>
</html>
`;

/** A reader that does not keep up is cut off at that much, bytes. */
const MOST_UNREAD = 4 << 20;

export function dashboardRoutes(sources: DashboardSources): Router {
  const router = express.Router();
  const send = (response: Response, type: string, body: string): void => {
    response.set({
      "Content-Security-Policy": POLICY,
      "X-Content-Type-Options": "nosniff",
      "Referrer-Policy": "no-referrer",
      "Cache-Control": "no-cache",
    });
    response.type(type).send(body);
  };
  router.get("/", (_request, response) => send(response, "html", PAGE));
  router.get("/dashboard.css", (_request, response) => send(response, "css", pageStyle()));
  router.get("/dashboard.js", async (_request, response) =>
    send(response, "js", await pageScript("dashboard")),
  );
  router.get("/log", (request, response) => {
    const after = Number(request.query.after ?? 0);
    response.set("Cache-Control", "no-store").json(sources.lines.since(Number.isFinite(after) ? after : 0));
  });
  router.get("/steps", (request, response) => {
    const model = String(request.query.model ?? "");
    const address = sources.address(model);
    if (address === undefined) {
      response
        .status(404)
        .json({ error: { code: 404, type: "not_found_error", message: `no model is called "${model}"` } });
      return;
    }
    streamSteps(response, { model, address, scope: ownScopes.get(request) ?? "", sources });
  });
  return router;
}

function streamSteps(
  response: Response,
  {
    model,
    address,
    scope,
    sources,
  }: { model: string; address: EngineAddress; scope: string; sources: DashboardSources },
): void {
  const texts = new TokenTexts(address);
  let last = Promise.resolve();
  const end = sources.watch(model, (steps) => {
    const own = steps.filter((step) => step.scope === scope);
    if (own.length === 0) return;
    last = last.then(async () => {
      const known = await texts.of(own.flatMap(({ nodes, accepted }) => [...nodes, ...accepted]));
      if (response.writableLength > MOST_UNREAD) response.destroy();
      else response.write(`data: ${JSON.stringify(own.map((step) => shown(step, known)))}\n\n`);
    });
  });
  response.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.flushHeaders();
  response.write(end === undefined ? 'event: none\ndata: "no drafter"\n\n' : ": watching\n\n");
  if (end === undefined) response.end();
  response.on("close", () => {
    end?.();
    void last.then(() => texts.close());
  });
}

function shown(
  { id, slot, nodes, parents, path, accepted, us }: WatchedStep,
  texts: ReadonlyMap<number, string>,
): ShownStep {
  const kept = new Set(path);
  const text = (token: number): string => texts.get(token) ?? `#${token}`;
  return {
    id,
    slot,
    nodes: nodes.map((token, i) => ({ text: text(token), parent: parents[i], accepted: kept.has(i) })),
    next: text(accepted[accepted.length - 1]),
    us,
  };
}

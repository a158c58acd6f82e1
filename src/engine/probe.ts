/** Asks an engine how it fares (GET /health) and what it is (POST /tree-verify: only the patched one knows it). */
import { Agent, type Dispatcher, request } from "undici";
import { messageOf } from "../errors.ts";
import type { EngineAddress, EngineSnapshot } from "./engine.ts";

const TIMEOUT_MS = 3000;

export interface Health {
  ready: boolean;
  /** Why it is not ready, in a few words. */
  reason?: string;
}

export interface ProbeOptions {
  /** API key of the engine. */
  apiKey?: string;
  /** @default 3000 */
  timeoutMs?: number;
}

export class EngineProbe {
  readonly #address: EngineAddress;
  readonly #dispatcher: Dispatcher;
  readonly #headers: Record<string, string>;
  readonly #timeoutMs: number;

  constructor(address: EngineAddress, options: ProbeOptions = {}) {
    this.#address = address;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#headers = options.apiKey ? { authorization: `Bearer ${options.apiKey}` } : {};
    this.#dispatcher = new Agent({
      connections: 1,
      pipelining: 0,
      connect: { socketPath: address.socketPath, timeout: this.#timeoutMs },
    });
  }

  /** Never throws. */
  async health(signal?: AbortSignal): Promise<Health> {
    try {
      const status = await this.#send("GET", "/health", signal);
      if (status === 200) return { ready: true };
      return { ready: false, reason: status === 503 ? "the model is loading" : `/health answers ${status}` };
    } catch (error) {
      return { ready: false, reason: messageOf(error) || "no answer" };
    }
  }

  /** What the engine is; undefined when it can't be told (no answer, or an API key is wanted). Never throws. */
  async kind(signal?: AbortSignal): Promise<EngineSnapshot["kind"]> {
    try {
      const status = await this.#send("POST", "/tree-verify", signal);
      // 400: knows the route and finds fault with {}; 501: knows it, but the model can't hold a tree
      if (status === 400 || status === 501) return "patched";
      return status === 404 || status === 405 ? "stock" : undefined;
    } catch {
      return undefined;
    }
  }

  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }

  async #send(method: "GET" | "POST", path: string, signal?: AbortSignal): Promise<number> {
    const { statusCode, body } = await request(this.#address.origin + path, {
      method,
      dispatcher: this.#dispatcher,
      headers: method === "POST" ? { ...this.#headers, "content-type": "application/json" } : this.#headers,
      body: method === "POST" ? "{}" : undefined,
      headersTimeout: this.#timeoutMs,
      bodyTimeout: this.#timeoutMs,
      signal,
    });
    await body.dump();
    return statusCode;
  }
}

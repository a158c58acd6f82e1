/** The text of single tokens, asked of the engine once per token. */
import { Client } from "undici";
import type { EngineAddress } from "../engine/engine.ts";

const TIMEOUT_MS = 5000;

export class TokenTexts {
  readonly #known = new Map<number, string>();
  readonly #client: Client;

  constructor({ origin, socketPath }: EngineAddress) {
    this.#client = new Client(origin, {
      connect: { socketPath },
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
    });
  }

  /** The texts of these tokens; a token that the engine does not tell is shown by its number. */
  async of(tokens: Iterable<number>): Promise<ReadonlyMap<number, string>> {
    for (const token of new Set(tokens)) {
      if (!this.#known.has(token)) this.#known.set(token, await this.#ask(token));
    }
    return this.#known;
  }

  async close(): Promise<void> {
    await this.#client.destroy();
  }

  async #ask(token: number): Promise<string> {
    try {
      const { body } = await this.#client.request({
        method: "POST",
        path: "/detokenize",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ tokens: [token] }),
      });
      const { content } = (await body.json()) as { content?: unknown };
      if (typeof content === "string") return content;
    } catch {
      // An engine that is going, or wants a key.
    }
    return `#${token}`;
  }
}

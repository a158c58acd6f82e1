/** API keys: kept as SHA-256 digests, compared in constant time; the digest's prefix names the learning scope. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { AdedError } from "../errors.ts";

/** A key may be given as this prefix and 64 hex digits, so that a config file need not hold the key itself. */
const HASHED = /^sha256:([0-9a-f]{64})$/i;

/** Hex digits of the digest that name a scope: enough that two keys do not meet, too few to guess a key from. */
const SCOPE_DIGITS = 16;

interface StoredKey {
  digest: Buffer;
  scope: string;
}

function digestOf(key: string): Buffer {
  return createHash("sha256").update(key, "utf8").digest();
}

export class KeyRing {
  readonly #keys: readonly StoredKey[];

  /**
   * @param keys plain keys or `sha256:<64 hex digits>`; none: every request is let in, with the local scope
   * @throws AdedError ADED_CONFIG for an empty key
   */
  constructor(keys: readonly string[] = []) {
    this.#keys = keys.map((key) => {
      if (key.trim() === "") {
        throw new AdedError("ADED_CONFIG", "an API key is empty", { hint: "Remove it or give it a value." });
      }
      const hashed = HASHED.exec(key);
      const digest = hashed ? Buffer.from(hashed[1], "hex") : digestOf(key);
      return { digest, scope: digest.toString("hex").slice(0, SCOPE_DIGITS) };
    });
  }

  get empty(): boolean {
    return this.#keys.length === 0;
  }

  /**
   * The learning scope of the key that this request carries (`Authorization: Bearer …` or `x-api-key: …`); "" when no keys
   * are configured; undefined when the key is missing or wrong.
   */
  scopeOf(request: IncomingMessage): string | undefined {
    if (this.#keys.length === 0) return "";
    let scope: string | undefined;
    for (const presented of presentedKeys(request)) {
      const digest = digestOf(presented);
      // All keys are compared, whichever one matches, so that the time taken tells nothing.
      for (const key of this.#keys) {
        if (timingSafeEqual(key.digest, digest)) scope = key.scope;
      }
    }
    return scope;
  }
}

function presentedKeys(request: IncomingMessage): string[] {
  const keys: string[] = [];
  const bearer = /^Bearer +(.+)$/i.exec(request.headers.authorization ?? "");
  if (bearer) keys.push(bearer[1].trim());
  const header = request.headers["x-api-key"];
  if (typeof header === "string" && header !== "") keys.push(header);
  return keys;
}

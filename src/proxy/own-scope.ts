/** The learning scope of a request to the proxy's own routes, for routes that show some of it to its owner only. */
import type { IncomingMessage } from "node:http";

export const ownScopes = new WeakMap<IncomingMessage, string>();

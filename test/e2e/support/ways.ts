/** For clients that are not our own: a TCP way straight to the engine, beside the one through the proxy, and what answers of both have in common. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import type { Stack } from "./stack.ts";

/** What tells of one request: ids, times, how long it took, and what of the prompt the cache held: the second to ask finds what the first one left. */
const OWN = new Set([
  "id",
  "created",
  "created_at",
  "completed_at",
  "timings",
  "cached_tokens",
  "item_id",
  "input_tokens",
  "cache_read_input_tokens",
]);

/** The same with what is a request's own left out. */
export function masked(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(masked);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !OWN.has(key))
      .map(([key, part]) => [key, masked(part)]),
  );
}

export interface Bridge {
  /** http://127.0.0.1:PORT */
  url: string;
  close(): void;
}

/** The engine listens on a Unix socket, of which other people's clients know nothing. */
export async function openBridge(stack: Stack): Promise<Bridge> {
  const server = createServer((client) => {
    const engine = connect(stack.engine.address.socketPath as string);
    for (const socket of [client, engine]) socket.on("error", () => undefined);
    client.on("close", () => engine.destroy());
    engine.on("close", () => client.destroy());
    client.pipe(engine).pipe(client);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => server.close() };
}

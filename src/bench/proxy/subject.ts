/** This program's proxy in a process of its own, in front of the origin whose port is its argument. Tells port and CPU time over IPC. */
import { EventEmitter } from "node:events";
import type { Engine, EngineEvents, EngineSnapshot } from "../../engine/engine.ts";
import { silentLog } from "../../log.ts";
import { createProxy } from "../../proxy/app.ts";

class Origin extends EventEmitter<EngineEvents> implements Engine {
  readonly model = "origin";
  readonly address = { origin: `http://127.0.0.1:${process.argv[2]}` };

  snapshot(): EngineSnapshot {
    return { model: this.model, state: "ready", restarts: 0, kind: "patched" };
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {}
}

const proxy = createProxy({ models: [{ engine: new Origin() }], version: "bench", log: silentLog() });
const { port } = await proxy.listen({ port: 0 });
process.send?.({ port });
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  process.send?.({ cpuSeconds: (user + system) / 1e6 });
});
process.on("disconnect", () => process.exit(0));

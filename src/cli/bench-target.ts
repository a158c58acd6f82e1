/** The server that a bench or an evaluation talks to: one that runs, or the config's own, started for the time that it takes. */
import { setTimeout as delay } from "node:timers/promises";
import { ChatClient } from "../bench/chat-client.ts";
import { loadConfig } from "../config.ts";
import type { Progress } from "../engine/progress.ts";
import { createLog } from "../log.ts";
import { withServer } from "../main.ts";
import type { ProxyStatus } from "../proxy/status.ts";
import { interruptSignal } from "./interrupt.ts";
import { createProgress } from "./progress.ts";

const LINK_WAIT_MS = 10_000;
const LINK_POLL_MS = 100;

export interface TargetFlags {
  url?: string;
  config?: string;
  apiKey?: string;
}

/** The server that --url names, or the config's own, started for the time of `use`. */
export async function withTarget(
  flags: TargetFlags,
  use: (url: string, apiKey: string | undefined, progress: Progress) => Promise<void>,
): Promise<void> {
  const progress = createProgress();
  if (flags.url !== undefined) {
    await use(flags.url, flags.apiKey ?? process.env.ADED_API_KEY, progress);
    return;
  }
  // Nobody else knows the address of this server: it needs no key.
  await withServer(
    { ...loadConfig(flags.config), api_keys: [] },
    {
      log: createLog(process.env.ADED_LOG_LEVEL ?? "warn"),
      progress,
      signal: interruptSignal,
      use: async (url) => {
        await draftersConnected(url);
        await use(url, undefined, progress);
      },
    },
  );
}

/** Engines are ready a moment before their drafters; the first pairs shall not run without drafts for that. */
async function draftersConnected(url: string): Promise<void> {
  const client = new ChatClient(url);
  try {
    for (const deadline = performance.now() + LINK_WAIT_MS; performance.now() < deadline; ) {
      const status = (await client.get("/aded/status", interruptSignal)) as Partial<ProxyStatus> | undefined;
      const models = Object.values(status?.models ?? {});
      if (!models.some((model) => model.link === "connecting")) return;
      await delay(LINK_POLL_MS, undefined, { signal: interruptSignal });
    }
  } finally {
    await client.close();
  }
}

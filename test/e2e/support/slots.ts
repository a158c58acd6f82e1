/** What the engine's slots are doing. */
import { setTimeout as delay } from "node:timers/promises";
import type { Endpoint } from "./endpoint.ts";

const POLL_MS = 20;

/** Resolves once no slot is working, which it must come to within jest's time for a test. */
export async function untilIdle(engine: Endpoint): Promise<void> {
  while ((await engine.get<{ is_processing: boolean }[]>("/slots")).some((slot) => slot.is_processing)) {
    await delay(POLL_MS);
  }
}

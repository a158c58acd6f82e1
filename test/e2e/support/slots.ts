/** What the engine's slots are doing. */
import { setTimeout as delay } from "node:timers/promises";
import type { Endpoint } from "./endpoint.ts";

/**
 * How often to look, ms. llama-server finds out that the client of a request without streaming has left when nothing at all was
 * answered for a second: each look at /slots puts that off.
 */
const LOOK_EVERY_MS = 1200;

/** How many slots are working. */
export async function busySlots(engine: Endpoint): Promise<number> {
  const slots = await engine.get<{ is_processing: boolean }[]>("/slots");
  return slots.filter((slot) => slot.is_processing).length;
}

/** Resolves once no slot is working, which must come within jest's time for a test. */
export async function untilIdle(engine: Endpoint): Promise<void> {
  while ((await busySlots(engine)) > 0) await delay(LOOK_EVERY_MS);
}

/**
 * When the garbage of the drafter's thread is collected: before the first request and between requests, so that hardly any
 * collection falls into one. A step leaves half a kilobyte; with a young generation of 16 MiB that is one collection in
 * some 30,000 steps if there never is a pause between requests.
 */
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";

/**
 * V8's flags for the drafter's heap, and what they are for all others. The memory reducer takes a thread that allocates
 * little for an idle one and collects all of its garbage, several times over; the young generation begins small.
 */
const FLAGS = [
  ["--no-memory-reducer", "--memory-reducer"],
  ["--min-semi-space-size=16", "--min-semi-space-size=0"],
  ["--expose-gc", "--no-expose-gc"],
] as const;

/**
 * Whether threads that start from now on get the drafter's heap. V8 looks at the flags when a thread makes its heap; they
 * are the process's, so of two drafters that start at the same moment the second may get an ordinary one.
 */
export function drafterHeaps(on: boolean): void {
  for (const [own, ordinary] of FLAGS) setFlagsFromString(on ? own : ordinary);
}

/** Bytes of the young generation that make a collection worth its while. */
const WORTH_BYTES = 2 * 1024 * 1024;

function youngBytes(): number {
  const spaces = getHeapSpaceStatistics();
  return spaces.find(({ space_name }) => space_name === "new_space")?.space_used_size ?? 0;
}

/** Collects the young generation, if a few thousand steps have filled it; without such a heap, nothing. To be called when nobody waits for this thread. */
export function collectYoung(): void {
  if (youngBytes() >= WORTH_BYTES) globalThis.gc?.({ type: "minor" });
}

/** Collects everything, which takes some 10 ms; without such a heap, nothing. */
export function collectAll(): void {
  globalThis.gc?.();
}

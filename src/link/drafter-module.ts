/** What a drafter's thread loads: the drafter, and what makes it fast before its first step. */
export { AdedDrafter } from "../drafter/drafter.ts";
export { warmUp } from "../simulator/warm-up.ts";

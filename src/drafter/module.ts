/** What a drafter's thread loads: the drafter, and what makes it fast before its first step. */
export { AdedDrafter } from "./drafter.ts";
export { warmUp } from "./warm-up.ts";

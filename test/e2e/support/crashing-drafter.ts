/** The drafter, except that it brings its thread down after a dozen drafts. Loaded by the drafter's worker in place of the real one. */
import { AdedDrafter as RealDrafter } from "../../../src/drafter/drafter.ts";

export class AdedDrafter extends RealDrafter {
  #drafts = 0;

  override draft(step: Parameters<RealDrafter["draft"]>[0]): ReturnType<RealDrafter["draft"]> {
    if (++this.#drafts > 12) throw new Error("the drafter crashes, as the test wants it to");
    return super.draft(step);
  }
}

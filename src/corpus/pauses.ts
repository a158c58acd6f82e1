/**
 * Lets a process stand still while somebody is being answered. Low priority is not enough where the engine uses every core: single
 * steps then took several times as long, with SCHED_IDLE too (docs/corpora.md).
 */
import { killGroup } from "../engine/child.ts";

/** How often to look whether somebody is being answered, ms. */
const LOOK_MS = 10;
/** So that it ends some time on a server that is never idle: as long as this it runs, once in so long, ms. Two or three of 300 tokens feel it. */
const TURN_MS = 20;
const TURN_EVERY_MS = 5000;

/**
 * @param pid leader of a process group
 * @param busy whether it has to stand still
 * @returns ends that; the group goes on
 */
export function pauseWhile(pid: number, busy: () => boolean): () => void {
  let stoppedAt: number | undefined;
  const goOn = (): void => {
    if (stoppedAt !== undefined) killGroup(pid, "SIGCONT");
    stoppedAt = undefined;
  };
  let turnUntil = 0;
  const look = (): void => {
    const now = performance.now();
    if (!busy()) goOn();
    else if (stoppedAt === undefined) {
      if (now < turnUntil) return;
      killGroup(pid, "SIGSTOP");
      stoppedAt = now;
    } else if (now - stoppedAt >= TURN_EVERY_MS) {
      turnUntil = now + TURN_MS;
      goOn();
    }
  };
  look();
  const timer = setInterval(look, LOOK_MS);
  return () => {
    clearInterval(timer);
    goOn();
  };
}

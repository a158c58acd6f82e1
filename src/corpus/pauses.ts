/**
 * Lets a process stand still while somebody is being answered. Low priority is not enough where the engine uses every core: single
 * steps then took several times as long, with SCHED_IDLE too (docs/corpora.md).
 */
import { killGroup } from "../engine/child.ts";

/** How often to look whether somebody is being answered, ms. */
const LOOK_MS = 10;
/** The same while the process stands still: each look wakes this one up, and takes a core away from who is being answered. */
const STOPPED_LOOK_MS = 250;
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
  let timer: NodeJS.Timeout;
  const look = (): void => {
    const now = performance.now();
    if (!busy()) goOn();
    else if (stoppedAt === undefined && now >= turnUntil) {
      killGroup(pid, "SIGSTOP");
      stoppedAt = now;
    } else if (stoppedAt !== undefined && now - stoppedAt >= TURN_EVERY_MS) {
      turnUntil = now + TURN_MS;
      goOn();
    }
    timer = setTimeout(look, stoppedAt === undefined ? LOOK_MS : STOPPED_LOOK_MS);
  };
  look();
  return () => {
    clearTimeout(timer);
    goOn();
  };
}

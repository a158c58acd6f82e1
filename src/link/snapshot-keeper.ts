/**
 * Keeps what a drafter learnt on disk: takes in the last snapshot, writes one now and then, after a purge and at the end. A
 * disk that fails is told of once; drafting goes on. Of several processes that serve the same model from one ADED_HOME, one keeps what
 * its drafter learns.
 */
import type { Drafter, EngineInfo } from "../drafter/draft.ts";
import { tryLock } from "../engine/lock.ts";
import { messageOf } from "../errors.ts";
import type { LinkLog } from "./client.ts";

export interface SnapshotKeeperOptions {
  /** Path without ending; the vocabulary's hash and .snapshot are added. */
  base: string;
  /** Time between snapshots, ms; one is only written when steps were made since the last. */
  everyMs: number;
  log: LinkLog;
}

export class SnapshotKeeper {
  readonly #options: SnapshotKeeperOptions;
  #drafter: Drafter | undefined;
  #file = "";
  #timer: NodeJS.Timeout | undefined;
  #savedSteps = 0;
  #saving: Promise<void> | undefined;
  #failed = false;
  /** Gives the file back; undefined: another process keeps it, or it was not asked for yet. */
  #release: (() => Promise<void>) | undefined;
  /** The process that keeps the file, as last told. */
  #keptBy = 0;

  constructor(options: SnapshotKeeperOptions) {
    this.#options = options;
  }

  /** A new drafter, before its first request: loads what its predecessor left. */
  attach(drafter: Drafter, { vocabHash }: EngineInfo): void {
    const { base, everyMs, log } = this.#options;
    this.#drafter = drafter;
    this.#file = `${base}-${vocabHash}.snapshot`;
    this.#savedSteps = 0;
    const start = performance.now();
    try {
      const loaded = drafter.load?.(this.#file);
      const fields = { file: this.#file, rows: loaded?.rows, ms: Math.round(performance.now() - start) };
      if (loaded?.damage !== undefined) {
        const { reason, aside } = loaded.damage;
        log.warn(
          { ...fields, reason, aside },
          "the drafter's snapshot can't be used and was moved aside; the drafter starts empty",
        );
      } else if (loaded !== undefined && loaded.bytes > 0) {
        log.info(fields, "the drafter knows what it learnt before");
      }
    } catch (error) {
      this.#tellFailure(error, "can't read the drafter's snapshot; the drafter starts empty");
    }
    clearInterval(this.#timer);
    this.#timer = setInterval(() => void this.save(), everyMs);
    this.#timer.unref();
    const before = this.#saving;
    // another vocabulary has another file
    this.#saving = (async () => {
      await before;
      await this.#giveBack();
      await this.#hold();
    })();
  }

  /** Writes a snapshot if steps were made since the last, or in any case if told so; after the one that is being written. */
  save(always = false): Promise<void> {
    const before = this.#saving;
    const saving = (async () => {
      await before;
      await this.#save(always);
    })();
    this.#saving = saving;
    return saving;
  }

  /** Writes the last snapshot. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.save();
    await this.#giveBack();
  }

  /** Makes the file this process's own. @returns false while another one keeps it, which is told once */
  async #hold(): Promise<boolean> {
    if (this.#release !== undefined) return true;
    try {
      const lock = await tryLock(`${this.#file}.lock`);
      if ("release" in lock) this.#release = lock.release;
      else if (lock.ownerPid !== this.#keptBy) {
        this.#keptBy = lock.ownerPid;
        this.#options.log.warn(
          { file: this.#file, pid: lock.ownerPid },
          "another process keeps what this model's drafter learns; what this one learns is lost when it ends (another ADED_HOME, or another name of the model, keeps it apart)",
        );
      }
    } catch (error) {
      this.#tellFailure(error, "can't write the drafter's snapshot; what it learns is lost when it ends");
    }
    return this.#release !== undefined;
  }

  async #giveBack(): Promise<void> {
    const release = this.#release;
    this.#release = undefined;
    await release?.().catch(() => undefined);
  }

  async #save(always: boolean): Promise<void> {
    const drafter = this.#drafter;
    const steps = drafter?.stats().steps ?? 0;
    if (drafter?.save === undefined || (!always && steps === this.#savedSteps)) return;
    if (!(await this.#hold())) return;
    try {
      await drafter.save(this.#file);
      this.#savedSteps = steps;
      this.#failed = false;
    } catch (error) {
      this.#tellFailure(error, "can't write the drafter's snapshot; what it learns is lost when it ends");
    }
  }

  #tellFailure(error: unknown, message: string): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.log.warn({ file: this.#file, reason: messageOf(error) }, message);
  }
}

/**
 * Takes over a config file whenever it changes, and on SIGHUP. The folder is watched, not the file: editors write a new
 * file and rename it. A file that can't be used changes nothing.
 */
import { type FSWatcher, readFileSync, watch } from "node:fs";
import path from "node:path";
import { messageOf } from "../errors.ts";
import type { Log } from "../log.ts";

export interface ReloadOptions {
  /** The config file. */
  file: string;
  /** Reads and takes over the file. @throws AdedError that says what is wrong with it */
  reload: () => Promise<unknown>;
  log: Log;
  /** How long nothing must have changed, ms: a file is written in several steps. @default 300 */
  quietMs?: number;
}

export class ConfigWatcher {
  readonly #options: ReloadOptions;
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #text: string | undefined;
  #work: Promise<void> = Promise.resolve();
  readonly #onHup = (): void => this.#queue(true);

  constructor(options: ReloadOptions) {
    this.#options = options;
  }

  start(): void {
    const { file, quietMs = 300, log } = this.#options;
    this.#text = this.#read();
    process.on("SIGHUP", this.#onHup);
    try {
      this.#watcher = watch(path.dirname(file), { persistent: false }, (_event, name) => {
        if (name !== null && name !== path.basename(file)) return;
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#queue(false), quietMs);
      });
      this.#watcher.on("error", (error) =>
        log.warn({ err: error, file }, "the config file is watched no more"),
      );
    } catch (error) {
      log.warn({ err: error, file }, "the config file can't be watched; SIGHUP has it read again");
    }
  }

  /** Resolves when what is being taken over is done. */
  async stop(): Promise<void> {
    process.off("SIGHUP", this.#onHup);
    clearTimeout(this.#timer);
    this.#watcher?.close();
    await this.#work;
  }

  /** One after the other. */
  #queue(always: boolean): void {
    this.#work = this.#work.then(() => this.#reload(always));
  }

  async #reload(always: boolean): Promise<void> {
    const { file, reload, log } = this.#options;
    const text = this.#read();
    // between an editor's two steps there may be no file; and not every event is a change
    if (!always && (text === undefined || text === this.#text)) return;
    this.#text = text;
    try {
      const changes = await reload();
      log.info({ file, ...(changes as object) }, "the config file was read again");
    } catch (error) {
      const hint = (error as { hint?: string }).hint;
      log.error({ file, hint }, `the config file can't be used, the old config stays:\n${messageOf(error)}`);
    }
  }

  #read(): string | undefined {
    try {
      return readFileSync(this.#options.file, "utf8");
    } catch {
      return undefined;
    }
  }
}

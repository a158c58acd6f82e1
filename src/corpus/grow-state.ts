/**
 * What a growing corpus has so far: parts in a folder beside it, and a state file that says which of them count and where to
 * go on. The state is replaced whole, after its parts are on the disk; parts that it does not name were never finished.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { AdedError } from "../errors.ts";
import type { GrowPrompt } from "./grow-prompts.ts";
import { syncFile } from "./part-writer.ts";

export interface GrowSettings {
  vocabHash: string;
  /** Successors counted per token. */
  topK: number;
  /** Longest answer, tokens. */
  maxTokens: number;
  /** Answers per prompt: the first greedy, the others sampled. */
  repeat: number;
  temperature: number;
  /** Checksum of the prompts. */
  prompts: string;
}

/** An answer that was begun and not finished. */
export interface OpenAnswer {
  index: number;
  /** Prompt and answer so far; all of the answer is counted. */
  tokens: number[];
  /** Most tokens that there may be in the end. */
  end: number;
}

export interface GrowState extends GrowSettings {
  version: 1;
  /** Answers finished. */
  answers: number;
  /** Tokens generated. */
  tokens: number;
  /** Sum of all counts in the parts, and their checksum. */
  total: number;
  checksum: number;
  /** File names. */
  parts: string[];
  partial?: OpenAnswer;
}

export function promptsChecksum(prompts: readonly GrowPrompt[]): string {
  return createHash("sha256").update(JSON.stringify(prompts)).digest("hex").slice(0, 16);
}

export class GrowFolder {
  readonly path: string;
  readonly state: GrowState;

  private constructor(folder: string, state: GrowState) {
    this.path = folder;
    this.state = state;
  }

  /** Whether it goes on with an earlier run. */
  get resumed(): boolean {
    return this.state.answers > 0 || this.state.parts.length > 0;
  }

  /**
   * Opens the folder, or begins a new one.
   * @throws AdedError ADED_CORPUS when it was begun with other prompts or settings
   */
  static async open(folder: string, settings: GrowSettings): Promise<GrowFolder> {
    const file = path.join(folder, "state.json");
    const fresh: GrowState = {
      version: 1,
      ...settings,
      answers: 0,
      tokens: 0,
      total: 0,
      checksum: 0,
      parts: [],
    };
    if (!existsSync(file)) {
      await mkdir(folder, { recursive: true });
      return new GrowFolder(folder, fresh);
    }
    const state = JSON.parse(await readFile(file, "utf8")) as GrowState;
    const changed = (Object.keys(settings) as (keyof GrowSettings)[]).filter(
      (key) => state[key] !== settings[key],
    );
    if (changed.length > 0 || state.version !== 1) {
      throw new AdedError("ADED_CORPUS", `${folder} was begun with other settings (${changed.join(", ")})`, {
        hint: "go on with the same ones, or remove that folder, or name another file with --out",
      });
    }
    for (const name of await readdir(folder)) {
      if (name.startsWith("part-") && !state.parts.includes(name)) await rm(path.join(folder, name));
    }
    return new GrowFolder(folder, state);
  }

  /** Path of the next part. */
  nextPart(): string {
    return path.join(this.path, `part-${String(this.state.parts.length).padStart(5, "0")}.parquet`);
  }

  /** Paths of the parts that count. */
  get parts(): string[] {
    return this.state.parts.map((name) => path.join(this.path, name));
  }

  /** Makes what was learnt last. */
  async save(): Promise<void> {
    const file = path.join(this.path, "state.json");
    await writeFile(`${file}.tmp`, JSON.stringify(this.state));
    await syncFile(`${file}.tmp`);
    await rename(`${file}.tmp`, file);
  }

  remove(): Promise<void> {
    return rm(this.path, { recursive: true, force: true });
  }
}

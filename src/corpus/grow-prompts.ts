/** What the model is asked when it writes its own corpus: prompts of a file, or beginnings taken from texts. */
import { loadPrompts } from "../bench/prompts.ts";
import { AdedError } from "../errors.ts";
import { openBytes } from "./byte-source.ts";
import { type Database, openDatabase } from "./database.ts";
import { type Format, RecordFault, readRecord } from "./formats.ts";
import { findInputs, plainName, RECORD_ENDINGS } from "./inputs.ts";
import { parquetRecords } from "./parquet-records.ts";
import { jsonLayout, type RawRecord, split } from "./split.ts";

export interface GrowPrompt {
  text: string;
  /** True: said by a user, so the chat template is put around it. False: the beginning of a text to go on with. */
  chat: boolean;
}

/** "prompts": JSONL of MT-Bench, HumanEval or {"prompt"}; otherwise what users say in conversations, or how texts begin. */
export type GrowFormat = Format | "prompts";

/** Characters of a text that the model is given to go on with. */
const BEGINNING_CHARS = 240;
const MEMORY = 256 * 2 ** 20;

/** @throws AdedError when a file can't be read, or there is no prompt at all */
export async function growPrompts(
  names: readonly string[],
  format: GrowFormat,
  signal?: AbortSignal,
): Promise<GrowPrompt[]> {
  if (format === "prompts") {
    return (await loadPrompts(names)).map(({ text }) => ({ text, chat: true }));
  }
  const prompts: GrowPrompt[] = [];
  const endings = format === "text" ? undefined : RECORD_ENDINGS;
  const database = await openDatabase({ memory: MEMORY, signal });
  try {
    for (const input of await findInputs(names, { endings })) {
      for await (const { bytes, json } of records(input, database, signal)) {
        const prompt = promptOf(bytes, json, format);
        if (prompt !== undefined) prompts.push(prompt);
      }
    }
  } finally {
    await database.close();
  }
  if (prompts.length > 0) return prompts;
  throw new AdedError("ADED_CORPUS", `no prompt in ${names.join(", ")}`, {
    hint: "check --format and the files",
  });
}

async function* records(
  input: { name: string; path?: string; bytes: number },
  database: Database,
  signal?: AbortSignal,
): AsyncGenerator<RawRecord & { json: boolean }> {
  const source = await openBytes(input, signal);
  if (source.kind === "parquet" && input.path !== undefined) {
    for await (const record of parquetRecords(database, input.path)) yield { ...record, json: true };
    return;
  }
  const json = /\.(json|jsonl|ndjson)$/.test(plainName(input.name));
  const parts: Buffer[] = [];
  // files of prompts are small
  for await (const chunk of source.chunks) parts.push(chunk);
  const all = Buffer.concat(parts);
  async function* whole(): AsyncGenerator<Buffer> {
    yield all;
  }
  for await (const record of split(whole(), json ? jsonLayout(all) : "text", () => {})) {
    yield { ...record, json };
  }
}

/** What the user says first, or how the text begins; undefined for a record without either. */
function promptOf(bytes: Buffer, json: boolean, format: Format): GrowPrompt | undefined {
  const text = bytes.toString();
  try {
    const turns = readRecord(json ? JSON.parse(text) : text, { format }) ?? [];
    const asked = turns.find(({ role }) => role === "user");
    if (asked !== undefined) return { text: asked.text, chat: true };
    if (turns.length === 0) return undefined;
    const begin = turns[0].text.slice(0, BEGINNING_CHARS);
    const end = begin.lastIndexOf("\n");
    return { text: end > BEGINNING_CHARS / 4 ? begin.slice(0, end + 1) : begin, chat: false };
  } catch (error) {
    if (error instanceof RecordFault || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

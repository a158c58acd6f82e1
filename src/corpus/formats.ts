/**
 * What the records of each data set hold: UltraChat (`data`), ShareGPT (`conversations[].value`), The Stack (`content`), and
 * texts (plain, or records with a text in them). A record becomes one document: a conversation or a text.
 */

export const FORMATS = ["ultrachat", "sharegpt", "stack", "text"] as const;
export type Format = (typeof FORMATS)[number];

export type Role = "system" | "user" | "assistant";

export interface Turn {
  /** undefined: no turn of a conversation, but a text. */
  role?: Role;
  text: string;
}

export interface FormatOptions {
  format: Format;
  /** The Stack: keep these languages only (`lang`, `language` or `ext` of the record). None: all. */
  languages?: readonly string[];
  /** Name of the field that holds the text, for records that call it otherwise. */
  field?: string;
}

/** A record that is not what its format wants; the message says what is missing. */
export class RecordFault extends Error {}

const ROLES: Record<string, Role> = {
  human: "user",
  user: "user",
  prompter: "user",
  gpt: "assistant",
  chatgpt: "assistant",
  bing: "assistant",
  bard: "assistant",
  assistant: "assistant",
  model: "assistant",
  system: "system",
};

/** Where records of texts keep them, in this order. */
const TEXT_FIELDS = ["text", "content", "completion", "response", "output", "answer"] as const;

/**
 * The turns of one record, empty ones left out; undefined when the record is filtered out.
 * @throws RecordFault
 */
export function readRecord(value: unknown, options: FormatOptions): Turn[] | undefined {
  if (options.format === "text" && typeof value === "string") return texts([value]);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new RecordFault("it is no object");
  }
  const record = value as Record<string, unknown>;
  if (options.field !== undefined) {
    const text = record[options.field];
    if (typeof text !== "string") throw new RecordFault(`it has no text in "${options.field}"`);
    return texts([text]);
  }
  switch (options.format) {
    case "ultrachat":
      return readUltraChat(record);
    case "sharegpt":
      return readShareGpt(record);
    case "stack":
      return readStack(record, options.languages ?? []);
    case "text":
      return readText(record);
  }
}

/** Questions and answers in turn; later editions of the data set write `messages` instead. */
function readUltraChat(record: Record<string, unknown>): Turn[] {
  if (Array.isArray(record.messages)) return readMessages(record.messages, "messages", "role", "content");
  const { data } = record;
  if (!Array.isArray(data)) throw new RecordFault('it has no list "data"');
  return data.flatMap((text: unknown, i) => turn(i % 2 === 0 ? "user" : "assistant", text, `data[${i}]`));
}

function readShareGpt(record: Record<string, unknown>): Turn[] {
  const { conversations } = record;
  if (!Array.isArray(conversations)) throw new RecordFault('it has no list "conversations"');
  return readMessages(conversations, "conversations", "from", "value");
}

function readMessages(list: readonly unknown[], name: string, roleKey: string, textKey: string): Turn[] {
  return list.flatMap((item, i) => {
    const where = `${name}[${i}]`;
    if (typeof item !== "object" || item === null) throw new RecordFault(`${where} is no object`);
    const message = item as Record<string, unknown>;
    if (!(textKey in message)) throw new RecordFault(`${where} has no "${textKey}"`);
    const role = ROLES[String(message[roleKey]).toLowerCase()];
    if (role === undefined)
      throw new RecordFault(`${where} has the unknown "${roleKey}" ${quote(message[roleKey])}`);
    return turn(role, message[textKey], `${where}.${textKey}`);
  });
}

function readStack(record: Record<string, unknown>, languages: readonly string[]): Turn[] | undefined {
  if (languages.length > 0) {
    const own = [record.lang, record.language, record.ext].filter((name) => typeof name === "string");
    if (own.length === 0) throw new RecordFault('it has no "lang" to choose by');
    const wanted = languages.map((name) => name.toLowerCase());
    if (!own.some((name) => wanted.includes((name as string).toLowerCase()))) return undefined;
  }
  if (!("content" in record)) throw new RecordFault('it has no "content"');
  return turn(undefined, record.content, "content");
}

/** Texts as data sets and benchmarks write them: {text}, HumanEval's {completion}, FastChat's {choices: [{turns}]}. */
function readText(record: Record<string, unknown>): Turn[] {
  const field = TEXT_FIELDS.find((name) => typeof record[name] === "string");
  if (field !== undefined) return texts([record[field] as string]);
  const turns = Array.isArray(record.choices)
    ? record.choices.flatMap((choice: unknown) => (choice as { turns?: unknown } | null)?.turns ?? [])
    : record.turns;
  if (Array.isArray(turns)) return turns.flatMap((text: unknown, i) => turn(undefined, text, `turns[${i}]`));
  throw new RecordFault(`it has no text (none of ${TEXT_FIELDS.join(", ")}, choices, turns)`);
}

const texts = (list: readonly string[]): Turn[] =>
  list.filter((text) => text !== "").map((text) => ({ text }));

/** A turn, or none if it is empty. */
function turn(role: Role | undefined, text: unknown, where: string): Turn[] {
  if (text === null || text === undefined || text === "") return [];
  if (typeof text !== "string") throw new RecordFault(`${where} is no text`);
  return [{ role, text }];
}

function quote(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 40) ?? "undefined";
}

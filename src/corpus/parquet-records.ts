/** Records of a Parquet file, as JSON texts of the columns that a format needs; read row by row, never whole. */
import type { Database } from "./database.ts";
import { literal } from "./database.ts";
import type { RawRecord } from "./split.ts";

/** Columns that any of the formats looks at (formats.ts). */
const COLUMNS = [
  ...["data", "messages", "conversations", "content", "lang", "language", "ext"],
  ...["text", "completion", "response", "output", "answer", "choices", "turns"],
];

/** @param field a further column. The `line` of a record is its row, from 1. @throws AdedError ADED_CORPUS for a damaged file */
export async function* parquetRecords(
  database: Database,
  file: string,
  field?: string,
): AsyncGenerator<RawRecord> {
  const what = `can't read ${file}`;
  const from = `read_parquet(${literal(file)})`;
  const described = await database.rows<{ column_name: string }>(`DESCRIBE SELECT * FROM ${from}`, what);
  const there = described.map(({ column_name }) => column_name);
  const wanted = there.filter((name) => COLUMNS.includes(name) || name === field);
  // without any of them each record is a fault that says so
  const columns = wanted.length > 0 ? wanted : there.slice(0, 1);
  const fields = columns.map((name) => `${identifier(name)} := ${identifier(name)}`).join(", ");
  let line = 1;
  for await (const text of database.texts(`SELECT to_json(struct_pack(${fields})) FROM ${from}`, what)) {
    yield { line: line++, bytes: Buffer.from(text) };
  }
}

function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

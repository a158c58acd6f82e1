import { writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "@jest/globals";
import { type ByteKind, openBytes } from "../../../src/corpus/byte-source.ts";
import { literal, openDatabase } from "../../../src/corpus/database.ts";
import { scratchFolder } from "./support.ts";

const folder = scratchFolder();
const lines = Array.from({ length: 50_000 }, (_, i) => `line ${i} ${"x".repeat(i % 50)}`);
const text = `${lines.join("\n")}\n`;

function save(name: string, bytes: string | Buffer): string {
  const file = path.join(folder, name);
  writeFileSync(file, bytes);
  return file;
}

async function unpack(file: string): Promise<{ kind: ByteKind; text: string; taken: number }> {
  const source = await openBytes({ name: path.basename(file), path: file, bytes: 0 });
  const parts: Buffer[] = [];
  for await (const chunk of source.chunks) parts.push(chunk);
  return { kind: source.kind, text: Buffer.concat(parts).toString(), taken: source.taken() };
}

/** Zstandard as DuckDB writes it. */
async function zstd(name: string): Promise<string> {
  const plain = save("plain.txt", text);
  const packed = path.join(folder, name);
  const database = await openDatabase({ memory: 64 * 2 ** 20 });
  await database.run(
    `COPY (SELECT line FROM read_csv(${literal(plain)}, header = false, delim = '\\0', quote = '', escape = '', columns = {'line': 'VARCHAR'}))
     TO ${literal(packed)} (FORMAT csv, HEADER false, QUOTE '', COMPRESSION zstd)`,
    "test",
  );
  await database.close();
  return packed;
}

describe("unpacking by the first bytes", () => {
  it("leaves plain files as they are", async () => {
    const file = save("plain.json", text);
    const { kind, text: got, taken } = await unpack(file);
    expect({ kind, same: got === text, taken }).toEqual({ kind: "plain", same: true, taken: text.length });
  });

  it("takes an empty file", async () => {
    expect(await unpack(save("empty", ""))).toEqual({ kind: "plain", text: "", taken: 0 });
  });

  it("unpacks gzip, also several members in a row", async () => {
    const half = text.length >> 1;
    const file = save("two", Buffer.concat([gzipSync(text.slice(0, half)), gzipSync(text.slice(half))]));
    const { kind, text: got } = await unpack(file);
    expect({ kind, same: got === text }).toEqual({ kind: "gzip", same: true });
  });

  it("unpacks Zstandard", async () => {
    const { kind, text: got } = await unpack(await zstd("packed"));
    expect({ kind, same: got === text }).toEqual({ kind: "zstd", same: true });
  });

  it("names a file that is cut off or damaged", async () => {
    const gzip = gzipSync(text);
    await expect(unpack(save("cut.gz", gzip.subarray(0, gzip.length - 100)))).rejects.toThrow(
      "cut.gz is a damaged gzip file",
    );
    const packed = await zstd("whole.zst");
    const { readFileSync } = await import("node:fs");
    const bytes = readFileSync(packed);
    await expect(unpack(save("cut.zst", bytes.subarray(0, bytes.length >> 1)))).rejects.toThrow(
      "cut.zst is a damaged zstd file",
    );
    bytes.fill(0x55, 200, 400);
    await expect(unpack(save("bad.zst", bytes))).rejects.toThrow("bad.zst is a damaged zstd file");
  });

  it("says what to do about packers that are not known", async () => {
    await expect(unpack(save("x.bz2", "BZh91AY&SY"))).rejects.toThrow("packed in a way that is not known");
    await expect(unpack(save("x.zip", "PK\x03\x04…"))).rejects.toThrow("packed in a way that is not known");
  });

  it("says when a file can't be read", async () => {
    await expect(unpack(folder)).rejects.toThrow("can't read");
  });
});

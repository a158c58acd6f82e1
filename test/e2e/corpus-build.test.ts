/** `aded corpus build` with a real tokenizer: every format and packing, against a count by the book; and what interrupts it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { BuildReport } from "../../src/corpus/build.ts";
import { readChatMarkers, renderTurns } from "../../src/corpus/chat-markers.ts";
import { PARTS_DESCRIPTION, readCorpusFile } from "../../src/corpus/corpus-file.ts";
import { type Database, literal, openDatabase } from "../../src/corpus/database.ts";
import { readGrams } from "../../src/corpus/gram-stream.ts";
import { loadTokenizer, type TextTokenizer } from "../../src/corpus/tokenizer.ts";
import { readVocabulary, type Vocabulary } from "../../src/corpus/vocabulary.ts";
import { Random } from "../../src/drafter/random.ts";
import { defaultModelName, ensureModel } from "../../src/engine/models.ts";
import { projectPath } from "../../src/home.ts";
import { aded } from "../unit/cli/support.ts";
import { conversations, sourceTexts } from "./support/corpus-texts.ts";
import { type SmallDisk, smallDisk } from "./support/small-disk.ts";
import { SETUP_MS } from "./support/stack.ts";

let folder: string;
let modelPath: string;
let vocabulary: Vocabulary;
let tokenizer: TextTokenizer;
let database: Database;
const talks = conversations(70);
const sources = sourceTexts();

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-corpus-"));
  modelPath = await ensureModel(defaultModelName);
  vocabulary = await readVocabulary(modelPath);
  tokenizer = await loadTokenizer(modelPath);
  database = await openDatabase({ memory: 512 * 2 ** 20 });
}, SETUP_MS);
afterAll(async () => {
  await database?.close();
  await tokenizer?.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const at = (name: string): string => path.join(folder, name);

function save(name: string, content: string | Buffer): string {
  mkdirSync(path.dirname(at(name)), { recursive: true });
  writeFileSync(at(name), content);
  return at(name);
}

/** Each text tokenised whole, every 3-gram counted in a map. */
function naive(texts: readonly string[], special = false): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) {
    const ids = tokenizer.tokenize(text, special, false);
    for (let i = 2; i < ids.length; i++) {
      const key = `${ids[i - 2]} ${ids[i - 1]} ${ids[i]}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return counts;
}

/** The counts of a corpus, read to its end, so that order, total and checksum are checked. */
async function countsOf(file: string): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for await (const { count, a, b, c, n } of readGrams(database, await readCorpusFile(database, file))) {
    for (let i = 0; i < count; i++) counts.set(`${a[i]} ${b[i]} ${c[i]}`, n[i]);
  }
  return counts;
}

/** The first 3-grams, as text, that are counted otherwise. */
function differences(counts: ReadonlyMap<string, number>, expected: ReadonlyMap<string, number>): string[] {
  expect(expected.size).toBeGreaterThan(0);
  const keys = new Set([...counts.keys(), ...expected.keys()]);
  const wrong = [...keys].filter((key) => counts.get(key) !== expected.get(key)).slice(0, 5);
  return wrong.map((key) => {
    const text = tokenizer.detokenize(key.split(" ").map(Number));
    return `${JSON.stringify(text)}: ${counts.get(key)}, not ${expected.get(key)}`;
  });
}

async function build(out: string, ...args: string[]): Promise<BuildReport> {
  // each worker loads the tokenizer: where it does not matter, one is enough
  const how = ["--model", modelPath, "--workers", "1", "--out", at(out), "--json"];
  const done = await aded(["corpus", "build", ...how, ...args]);
  if (done.status !== 0) throw new Error(done.stderr);
  return JSON.parse(done.stdout) as BuildReport;
}

const ROLES = ["human", "gpt"];
const ultrachat = talks.map((data, i) => ({ id: String(i), data }));
const sharegpt = talks.map((turns, i) => ({
  id: `x${i}`,
  conversations: turns.map((value, t) => ({ from: ROLES[t % 2], value })),
}));
const stack = sources.map(({ name, text }) => ({
  content: text,
  lang: name.endsWith(".ts") ? "TypeScript" : "Other",
  size: text.length,
}));
const turns = talks.flat().filter((text) => text !== "");

describe("the counts of a corpus are those of a naive count", () => {
  it("UltraChat: JSONL with broken records, which are named and skipped", async () => {
    const lines = ultrachat.map((record) => JSON.stringify(record));
    lines.splice(3, 0, '{"id": "cut", "data": ["');
    lines.splice(10, 0, '{"id": "nothing"}', "");
    const file = save("ultra.jsonl", `${lines.join("\n")}\n`);
    const report = await build("ultra.parquet", "--format", "ultrachat", "--workers", "2", file);
    expect(differences(await countsOf(at("ultra.parquet")), naive(turns))).toEqual([]);
    expect(report).toMatchObject({ documents: talks.length, faults: 2 });
    expect(report.named_faults.map(({ line }) => line)).toEqual([4, 11]);
    const strict = await aded(
      ["corpus", "build", "--model", modelPath, "--format", "ultrachat", "--on-error", "fail"].concat([
        "--out",
        at("strict.parquet"),
        file,
      ]),
    );
    expect(strict).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("ultra.jsonl:4: it is no JSON"),
    });
    expect(readdirSync(folder).filter((name) => name.includes("strict"))).toEqual([]);
  });

  it("ShareGPT: one gzipped JSON array, as one part of two files", async () => {
    const half = sharegpt.length >> 1;
    save("share/a.json.gz", gzipSync(JSON.stringify(sharegpt.slice(0, half), null, 1)));
    save("share/b.json", JSON.stringify(sharegpt.slice(half)));
    const report = await build("share.parquet", "--format", "sharegpt", at("share"));
    expect(differences(await countsOf(at("share.parquet")), naive(turns))).toEqual([]);
    expect(report).toMatchObject({ files: 2, documents: talks.length, faults: 0 });
  });

  it("ShareGPT with the role markers of the chat template, as they occur in serving", async () => {
    const file = save("chat.json", JSON.stringify(sharegpt));
    await build("chat.parquet", "--format", "sharegpt", "--template", file);
    const markers = readChatMarkers(vocabulary);
    const spoken = talks.filter((said) => said.some((text) => text !== ""));
    const texts = spoken.map((said) =>
      renderTurns(
        said.flatMap((text, t) =>
          text === "" ? [] : [{ role: t % 2 ? "assistant" : "user", text } as const],
        ),
        markers,
      ),
    );
    expect(differences(await countsOf(at("chat.parquet")), naive(texts, true))).toEqual([]);
  });

  it("The Stack: Parquet, filtered by language; JSONL in Zstandard", async () => {
    const jsonl = save("stack.jsonl", stack.map((record) => JSON.stringify(record)).join("\n"));
    const parquet = at("stack-in.parquet");
    const packed = at("stack-in.jsonl.zst");
    const from = `read_json(${literal(jsonl)}, columns = {content: 'VARCHAR', lang: 'VARCHAR', size: 'BIGINT'})`;
    await database.run(
      `COPY (FROM ${from}) TO ${literal(parquet)} (FORMAT parquet, ROW_GROUP_SIZE 2048)`,
      "test",
    );
    await database.run(`COPY (FROM ${from}) TO ${literal(packed)} (FORMAT json, COMPRESSION zstd)`, "test");
    const typescript = stack.filter(({ lang }) => lang === "TypeScript").map(({ content }) => content);
    const report = await build("ts.parquet", "--format", "stack", "--language", "typescript", "--", parquet);
    expect(differences(await countsOf(at("ts.parquet")), naive(typescript))).toEqual([]);
    expect(report.filtered).toBe(stack.length - typescript.length);
    await build("all.parquet", "--format", "stack", packed);
    expect(
      differences(await countsOf(at("all.parquet")), naive(stack.map(({ content }) => content))),
    ).toEqual([]);
  });

  it("texts: the files of a folder, and answers in the format of FastChat from standard input", async () => {
    for (const { name, text } of sources) save(`texts/${name}`, text);
    await build("texts.parquet", "--format", "text", "--include", "*.ts", "*.h", "--", at("texts"));
    const texts = sources.filter(({ name }) => /\.(ts|h)$/.test(name)).map(({ text }) => text);
    expect(differences(await countsOf(at("texts.parquet")), naive(texts))).toEqual([]);

    const answers = talks.map((said, i) => ({ question_id: i, choices: [{ index: 0, turns: said }] }));
    const child = command("answers.parquet", "text");
    child.stdin?.end(answers.map((answer) => JSON.stringify(answer)).join("\n"));
    expect((await once(child, "close"))[0]).toBe(0);
    expect(differences(await countsOf(at("answers.parquet")), naive(turns))).toEqual([]);
  });
});

/** A build that reads standard input. */
function command(out: string, format: string): ChildProcess {
  const args = ["corpus", "build", "--model", modelPath, "--format", format, "--out", at(out), "-"];
  const child = spawn(process.execPath, [projectPath("bin", "aded.js"), ...args], {
    stdio: ["pipe", "ignore", "pipe"],
  });
  // some of these are killed while they read
  child.stdin.on("error", () => {});
  return child;
}

function printed(child: ChildProcess, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let all = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      all += chunk.toString();
      if (all.includes(text)) resolve();
    });
    child.once("exit", () => reject(new Error(`it ended without printing ${text}: ${all}`)));
  });
}

const left = (name: string): string[] => readdirSync(folder).filter((entry) => entry.includes(name));

describe("a build that is interrupted", () => {
  it("leaves nothing behind after Ctrl-C", async () => {
    const child = command("stopped.parquet", "text");
    child.stdin?.write("some text to count, over and over\n".repeat(150_000));
    await printed(child, "tokenize:");
    child.kill("SIGINT");
    const [status] = (await once(child, "close")) as [number];
    expect(status).toBe(130);
    expect(left("stopped")).toEqual([]);
  });

  it("leaves no corpus after kill -9 while it tokenises, and the next build cleans up", async () => {
    const child = command("killed.parquet", "text");
    child.stdin?.write("some text to count, over and over\n".repeat(150_000));
    await printed(child, "tokenize:");
    child.kill("SIGKILL");
    await once(child, "close");
    expect(existsSync(at("killed.parquet"))).toBe(false);
    expect(left("killed")).not.toEqual([]);
    await build("killed.parquet", "--format", "text", save("again.txt", "one two three four five"));
    expect(left("killed")).toEqual(["killed.parquet"]);
    expect(differences(await countsOf(at("killed.parquet")), naive(["one two three four five"]))).toEqual([]);
  });

  it("leaves no corpus after kill -9 while it counts", async () => {
    // random counts: large enough for adding them up to take a while
    const parts = at("parts");
    mkdirSync(parts);
    await database.run(
      `COPY (SELECT CAST(hash(range) % 1000 AS INTEGER) AS a, CAST(hash(range + 1) % 1000 AS INTEGER) AS b,
         CAST(range % 1000 AS INTEGER) AS c, 1 AS n FROM range(4000000)) TO ${literal(path.join(parts, "p.parquet"))}`,
      "test",
    );
    writeFileSync(
      path.join(parts, "_corpus.json"),
      JSON.stringify({ vocabHash: "x", scale: 1, sources: [] }),
    );
    const args = ["corpus", "merge", "--out", at("half.parquet"), parts];
    const child = spawn(process.execPath, [projectPath("bin", "aded.js"), ...args], { stdio: "ignore" });
    const ended = once(child, "close");
    const half = (): boolean =>
      readdirSync(folder, { recursive: true }).some((name) => String(name).endsWith("corpus.parquet"));
    while (!half() && child.exitCode === null) await delay(2);
    child.kill("SIGKILL");
    await ended;
    expect(child.signalCode).toBe("SIGKILL");
    expect(half()).toBe(true);
    expect(existsSync(at("half.parquet"))).toBe(false);
  });
});

describe("a disk that is full", () => {
  let disk: SmallDisk;
  let file: string;

  beforeAll(() => {
    disk = smallDisk(at("disk"), 400);
    // random words: many different 3-grams
    const random = new Random(3);
    const word = (): string => tokenizer.detokenize([300 + random.below(20_000)]);
    file = save("random.txt", Array.from({ length: 150_000 }, word).join(" "));
  });
  afterAll(() => disk.remove());

  async function fails(out: string, ...more: string[]): Promise<void> {
    const how = ["corpus", "build", "--model", modelPath, "--format", "text", ...more, file];
    const done = await disk.aded(how);
    expect(existsSync(out)).toBe(false);
    if (disk.mounted) {
      expect(done).toMatchObject({ status: 1, stderr: expect.stringContaining("the disk is full") });
      expect(readdirSync(disk.folder)).toEqual([]);
    } else {
      expect(done.status).not.toBe(0);
    }
  }

  it("is named while parts are written, and nothing stays", async () => {
    const out = path.join(disk.folder, "parts.parquet");
    await fails(out, "--out", out);
  });

  it("is named while the corpus is written, and nothing stays", async () => {
    const out = path.join(disk.folder, "counted.parquet");
    await fails(out, "--out", out, "--temp", at("roomy"));
    if (disk.mounted) expect(readdirSync(at("roomy"))).toEqual([]);
  });

  it("does not leave a folder of parts that looks whole", async () => {
    const out = path.join(disk.folder, "folder");
    await fails(path.join(out, PARTS_DESCRIPTION), "--parts", out);
  });
});

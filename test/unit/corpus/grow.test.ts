import { existsSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { readCorpusFile } from "../../../src/corpus/corpus-file.ts";
import { openDatabase } from "../../../src/corpus/database.ts";
import { diffCorpora } from "../../../src/corpus/diff.ts";
import { readGrams } from "../../../src/corpus/gram-stream.ts";
import { type GrowOptions, growCorpus } from "../../../src/corpus/grow.ts";
import { GrowClient } from "../../../src/corpus/grow-client.ts";
import { growPrompts } from "../../../src/corpus/grow-prompts.ts";
import { FakeModelServer, promptTokens, successors } from "./support/fake-model-server.ts";
import { scratchFolder } from "./support.ts";

const folder = scratchFolder();
const out = (name: string): string => path.join(folder, name);
const prompts = ["one", "two", "three", "four"].map((text) => ({ text, chat: true }));

let server: FakeModelServer;
let client: GrowClient;

beforeEach(async () => {
  server = new FakeModelServer();
  client = new GrowClient(await server.listen());
});
afterEach(async () => {
  await client.close();
  await server.close();
});

const options = (name: string, more: Partial<GrowOptions> = {}): GrowOptions => ({
  prompts,
  source: "test",
  out: out(name),
  vocabulary: { hash: "0123456789abcdef", size: 50, tokenizer: "test", bos: "", eos: "" },
  model: "fake.gguf",
  maxTokens: 20,
  repeat: 1,
  temperature: 0.8,
  topK: 3,
  ...more,
});

/** What the fake model's answers count to. */
function expected(maxTokens: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { text } of prompts) {
    const tokens = promptTokens(`u${text}a`);
    for (let i = 0; i < maxTokens; i++) {
      const [a, b] = tokens.slice(-2);
      const top = successors(a, b, 3);
      for (const { id, prob } of top) {
        const key = `${a} ${b} ${id}`;
        counts.set(key, (counts.get(key) ?? 0) + Math.round(prob * 1000));
      }
      tokens.push(top[0].id);
    }
  }
  return counts;
}

async function countsOf(file: string): Promise<Map<string, number>> {
  const database = await openDatabase({ memory: 128 * 2 ** 20 });
  const counts = new Map<string, number>();
  const corpus = await readCorpusFile(database, file);
  for await (const { count, a, b, c, n } of readGrams(database, corpus)) {
    for (let i = 0; i < count; i++) counts.set(`${a[i]} ${b[i]} ${c[i]}`, n[i]);
  }
  await database.close();
  return counts;
}

const FAULTY = { tokens: [], maxTokens: -1, temperature: 0, seed: 1, topK: 1 };

describe("growing a corpus", () => {
  it("counts the model's likeliest tokens by their probability, at each token of each answer", async () => {
    const report = await growCorpus(client, options("plain.parquet"));
    expect(await countsOf(out("plain.parquet"))).toEqual(expected(20));
    expect(report).toMatchObject({ answers: 4, tokens: 80, complete: true, resumed: false, yielded: 0 });
    expect(readdirSync(folder).filter((name) => name.includes("plain"))).toEqual(["plain.parquet"]);
  });

  it("goes on where it was stopped, and comes to the same counts", async () => {
    await growCorpus(client, options("whole.parquet"));
    const abort = new AbortController();
    let sent = 0;
    server.onToken = () => {
      if (++sent === 33) abort.abort(new Error("enough"));
    };
    await expect(growCorpus(client, options("pieces.parquet", { signal: abort.signal }))).rejects.toThrow(
      "enough",
    );
    expect(existsSync(out("pieces.parquet"))).toBe(false);
    const report = await growCorpus(client, options("pieces.parquet"));
    expect(report).toMatchObject({ answers: 4, tokens: 80, complete: true, resumed: true });
    expect(await diffCorpora(out("whole.parquet"), out("pieces.parquet"), 5)).toMatchObject({ distance: 0 });
  });

  it("stops at its budget with a corpus of what there is, and goes on with a larger one", async () => {
    const half = await growCorpus(client, options("budget.parquet", { budgetTokens: 50 }));
    expect(half).toMatchObject({ tokens: 50, complete: false });
    expect((await countsOf(out("budget.parquet"))).size).toBeGreaterThan(0);
    const rest = await growCorpus(client, options("budget.parquet", { budgetTokens: 1000 }));
    expect(rest).toMatchObject({ tokens: 80, complete: true, resumed: true });
    expect(await countsOf(out("budget.parquet"))).toEqual(expected(20));
  });

  it("does not go on with other prompts or settings", async () => {
    await growCorpus(client, options("mine.parquet", { budgetTokens: 10 }));
    const other = growCorpus(client, options("mine.parquet", { topK: 2 }));
    await expect(other).rejects.toThrow("was begun with other settings (topK)");
    const others = growCorpus(client, options("mine.parquet", { prompts: prompts.slice(1) }));
    await expect(others).rejects.toThrow("(prompts)");
  });

  it("steps aside while the server answers others, and then goes on with the same answer", async () => {
    let sent = 0;
    server.onToken = async () => {
      if (++sent !== 30) return;
      server.others = 1;
      // generating goes on until it is broken off
      while (server.left === 0) await new Promise((resolve) => setImmediate(resolve));
      setTimeout(() => {
        server.others = 0;
      }, 300);
    };
    const report = await growCorpus(client, options("polite.parquet"));
    expect(report.yielded).toBe(1);
    expect(server.left).toBe(1);
    expect(server.asked).toBe(5);
    expect(await countsOf(out("polite.parquet"))).toEqual(expected(20));
  });

  it("says what is wrong when the server is gone, or sends an error", async () => {
    const nobody = new GrowClient("http://127.0.0.1:1");
    await expect(growCorpus(nobody, options("gone.parquet"))).rejects.toMatchObject({
      code: "ADED_ENGINE_UNREACHABLE",
    });
    await nobody.close();
    await expect(client.generate({ ...FAULTY }).next()).rejects.toMatchObject({ code: "ADED_CORPUS" });
  });
});

describe("what a model is asked", () => {
  const save = (name: string, text: string): string => {
    writeFileSync(out(name), text);
    return out(name);
  };

  it("is what users say first in conversations", async () => {
    const file = save(
      "talks.jsonl",
      '{"data": ["Hi", "Hello"]}\n{"broken"\n{"data": []}\n{"data": ["Why?", "So."]}\n',
    );
    expect(await growPrompts([file], "ultrachat")).toEqual([
      { text: "Hi", chat: true },
      { text: "Why?", chat: true },
    ]);
  });

  it("is how texts begin, to the end of a line", async () => {
    const code = `import os\n${"x = 1\n".repeat(100)}`;
    const file = save("code.json", JSON.stringify([{ content: code, lang: "Python" }]));
    const [prompt] = await growPrompts([file], "stack");
    expect(prompt.chat).toBe(false);
    expect(code.startsWith(prompt.text)).toBe(true);
    expect(prompt.text.endsWith("x = 1\n")).toBe(true);
    expect(prompt.text.length).toBeLessThanOrEqual(240);
  });

  it("has to be there", async () => {
    await expect(growPrompts([save("none.jsonl", "{}\n")], "ultrachat")).rejects.toThrow("no prompt in");
  });
});

import { describe, expect, it } from "@jest/globals";
import { readRecord } from "../../../src/corpus/formats.ts";

describe("UltraChat", () => {
  const ultrachat = { format: "ultrachat" } as const;

  it("takes questions and answers in turn, and leaves empty ones out", () => {
    expect(readRecord({ id: "0", data: ["Hi", "Hello 👋", "", "…", null] }, ultrachat)).toEqual([
      { role: "user", text: "Hi" },
      { role: "assistant", text: "Hello 👋" },
      { role: "assistant", text: "…" },
    ]);
  });

  it("takes the messages of later editions", () => {
    const messages = [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "Hello" },
    ];
    expect(readRecord({ prompt: "Hi", messages }, ultrachat)).toEqual([
      { role: "user", text: "Hi" },
      { role: "assistant", text: "Hello" },
    ]);
  });

  it.each([
    [{ id: "0" }, 'no list "data"'],
    [{ data: "text" }, 'no list "data"'],
    [{ data: ["a", 5] }, "data[1] is no text"],
    [[], "no object"],
    ["text", "no object"],
    [null, "no object"],
  ])("%j: %s", (record, message) => expect(() => readRecord(record, ultrachat)).toThrow(message));
});

describe("ShareGPT", () => {
  const sharegpt = { format: "sharegpt" } as const;

  it("takes every speaker that the data set has", () => {
    const conversations = [
      { from: "system", value: "Be brief." },
      { from: "human", value: "¿Qué?" },
      { from: "gpt", value: "这是" },
      { from: "user", value: "?" },
      { from: "chatgpt", value: "" },
      { from: "bing", value: null },
    ];
    expect(readRecord({ id: "x", conversations }, sharegpt)?.map(({ role }) => role)).toEqual([
      "system",
      "user",
      "assistant",
      "user",
    ]);
  });

  it("takes a conversation without turns", () => {
    expect(readRecord({ conversations: [] }, sharegpt)).toEqual([]);
  });

  it.each([
    [{ id: "x" }, 'no list "conversations"'],
    [{ conversations: [null] }, "conversations[0] is no object"],
    [{ conversations: [{ from: "human" }] }, 'conversations[0] has no "value"'],
    [{ conversations: [{ from: "nobody", value: "a" }] }, 'unknown "from" "nobody"'],
    [{ conversations: [{ from: "human", value: { a: 1 } }] }, "conversations[0].value is no text"],
  ])("%j: %s", (record, message) => expect(() => readRecord(record, sharegpt)).toThrow(message));
});

describe("The Stack", () => {
  it("takes the content", () => {
    expect(readRecord({ content: "x = 1\n", lang: "Python" }, { format: "stack" })).toEqual([
      { text: "x = 1\n" },
    ]);
  });

  it("filters by language, whatever the column is called", () => {
    const python = { format: "stack", languages: ["python", "py"] } as const;
    expect(readRecord({ content: "x", lang: "Python" }, python)).toEqual([{ text: "x" }]);
    expect(readRecord({ content: "x", language: "python" }, python)).toEqual([{ text: "x" }]);
    expect(readRecord({ content: "x", ext: "py" }, python)).toEqual([{ text: "x" }]);
    expect(readRecord({ content: "x", lang: "Rust", ext: "rs" }, python)).toBeUndefined();
    expect(() => readRecord({ content: "x" }, python)).toThrow('no "lang"');
  });

  it("wants a content", () => {
    expect(() => readRecord({ lang: "Python" }, { format: "stack" })).toThrow('no "content"');
    expect(readRecord({ content: "" }, { format: "stack" })).toEqual([]);
  });
});

describe("texts", () => {
  const text = { format: "text" } as const;

  it.each([
    ["a plain text", "hello", ["hello"]],
    ["{text}", { text: "hello" }, ["hello"]],
    ["HumanEval's samples", { task_id: "HumanEval/0", completion: "    return 1" }, ["    return 1"]],
    [
      "FastChat's answers",
      { question_id: 81, choices: [{ index: 0, turns: ["one", "", "two"] }] },
      ["one", "two"],
    ],
    ["MT-Bench's questions", { question_id: 81, turns: ["one", "two"] }, ["one", "two"]],
    ["an empty text", { text: "" }, []],
  ])("takes %s", (_name, record, expected) => {
    expect(readRecord(record, text)?.map((turn) => turn.text)).toEqual(expected);
  });

  it("takes the field that is named", () => {
    expect(readRecord({ text: "no", body: "yes" }, { ...text, field: "body" })).toEqual([{ text: "yes" }]);
    expect(() => readRecord({ text: "no" }, { ...text, field: "body" })).toThrow('no text in "body"');
  });

  it("says which fields it looked for", () => {
    expect(() => readRecord({ id: 1 }, text)).toThrow("it has no text (none of text, content,");
  });
});

/**
 * Texts to count, in the formats of the data sets, with the odd records that the originals have. Deterministic: made of this
 * project's own sources and of seeded chance.
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { Random } from "../../../src/drafter/random.ts";
import { projectPath } from "../../../src/home.ts";

const MOST_SOURCE_CHARS = 400_000;

/** Source files of this project: real code. */
export function sourceTexts(): { name: string; text: string }[] {
  let chars = 0;
  // every third, so that each folder has its share
  return projectTexts(["src", "test", "patches"], /\.(ts|cpp|h|inl)$/).filter(({ text }, i) => {
    if (i % 3 > 0 || chars > MOST_SOURCE_CHARS) return false;
    chars += text.length;
    return true;
  });
}

function projectTexts(folders: readonly string[], names: RegExp): { name: string; text: string }[] {
  return folders.flatMap((folder) =>
    readdirSync(projectPath(folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && names.test(entry.name))
      .map((entry) => path.join(entry.parentPath, entry.name))
      .sort()
      .map((file) => ({ name: path.relative(projectPath(), file), text: readFileSync(file, "utf8") })),
  );
}

export const ODD = [
  "Grüße aus Köln – schön, daß es 5 € kostet! ½ + ⅓ = ⅚",
  "これは長い文章です。日本語にはスペースがありません。東京、大阪、京都。",
  "مرحبا بالعالم، كيف حالك اليوم؟ هذا نص باللغة العربية.",
  "नमस्ते दुनिया। यह हिन्दी में एक वाक्य है।",
  "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 thumb, 🇩🇪🇫🇷",
  "tabs\t\tand   spaces \r\n\r\n and\u00a0others\u2028end  \n\n\n",
  "<|im_start|>user\nnot a marker<|im_end|>",
  "\u0000\u0001 control \ufffd characters \u200b zero \ufeff width",
  "x".repeat(3000),
  "1234567890".repeat(300),
  "   ",
];

/** Conversations: question, answer, question, …; among them odd ones, and one message of a megabyte. */
export function conversations(count: number): string[][] {
  const random = new Random(7);
  const sentences = projectTexts(["docs", "patches"], /\.md$/)
    .flatMap(({ text }) => text.split(/(?<=[.:])\s+/))
    .filter((sentence) => sentence.length > 20);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random.next() * list.length)];
  const said = (most: number): string =>
    Array.from({ length: 1 + Math.floor(random.next() * most) }, () => pick(sentences)).join(" ");
  const list = Array.from({ length: count }, (_, i) => {
    const turns = Array.from({ length: 1 + Math.floor(random.next() * 6) }, (_unused, t) =>
      said(t % 2 ? 8 : 2),
    );
    if (i % 5 === 0) turns[turns.length - 1] = ODD[(i / 5) % ODD.length];
    if (i % 9 === 0) turns.push("");
    return turns;
  });
  list.push(["Repeat everything.", said(1).repeat(Math.ceil(1e6 / 60))]);
  return list;
}

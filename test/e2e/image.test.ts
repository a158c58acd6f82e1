/** Prompts with images in them: drafts go on behind the image, and change nothing. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { writeImageEncoder } from "./support/chance-files.ts";
import { EXACT } from "./support/exact.ts";
import { type Arm, type ChatAnswer, type Completion, complete, visible } from "./support/generate.ts";
import { PROMPTS, TURNS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const SIDE = 32;

let stack: Stack;
let folder: string;
let marker: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "aded-image-"));
  const encoder = path.join(folder, "encoder.gguf");
  writeImageEncoder(encoder, 1);
  stack = await startStack({ ...EXACT, args: [...(EXACT.args ?? []), "--mmproj", encoder] });
  marker = (await stack.direct.get<{ media_marker: string }>("/props")).media_marker;
}, SETUP_MS);
afterAll(async () => {
  await stack?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** A bitmap of stripes, as base64. */
function stripes(width: number): string {
  const header = Buffer.alloc(54);
  header.write("BM");
  header.writeUInt32LE(54 + 3 * SIDE * SIDE, 2);
  header.writeUInt32LE(54, 10);
  header.writeUInt32LE(40, 14);
  header.writeInt32LE(SIDE, 18);
  header.writeInt32LE(SIDE, 22);
  header.writeUInt16LE(1, 26);
  header.writeUInt16LE(24, 28);
  const pixels = Buffer.from(
    Array.from({ length: SIDE * SIDE }, (_, i) =>
      ((i % SIDE) / width) & 1 ? [250, 30, 60] : [10, 200, 90],
    ).flat(),
  );
  return Buffer.concat([header, pixels]).toString("base64");
}

interface Sight {
  /** Widths of the stripes of the images, one after the other. */
  images: number[];
  body?: Record<string, unknown>;
}

/** Body of a request to tell what was seen. */
function seen({ images, body }: Sight): Record<string, unknown> {
  const prompt = {
    prompt_string: TURNS[0].replace("user\n", `user\n${images.map(() => `${marker}\n`).join("")}`),
    multimodal_data: images.map(stripes),
  };
  return { prompt, n_predict: 40, ...body };
}

function tell(sight: Sight, arm: Arm): Promise<Completion> {
  return complete(stack.proxy, seen(sight), arm);
}

const SIGHTS: Sight[] = [
  { images: [2] },
  { images: [16], body: { temperature: 0.8, seed: 3 } },
  { images: [3, 8], body: { n_probs: 3, ignore_eos: true } },
];

it("the text behind an image is that without drafts, one by one and beside others", async () => {
  const alone: Completion[] = [];
  for (const sight of SIGHTS) alone.push(await tell(sight, "off"));
  // the text tells what was seen
  const other = await tell({ images: [7] }, "off");
  expect(other.content).not.toBe(alone[0].content);
  const plain = await complete(stack.proxy, { prompt: TURNS[3], n_predict: 80 }, "off");

  const drafted: Completion[] = [];
  for (const sight of SIGHTS) drafted.push(await tell(sight, "on"));
  // images are decoded while another slot's draft waits to be verified
  const [text, ...together] = await Promise.all([
    complete(stack.proxy, { prompt: TURNS[3], n_predict: 80 }, "on"),
    ...SIGHTS.map((sight) => tell(sight, "on")),
  ]);
  expect(visible(text)).toEqual(visible(plain));
  for (const answers of [drafted, together]) {
    expect(answers.map(visible)).toEqual(alone.map(visible));
    expect(answers[2].completion_probabilities).toEqual(alone[2].completion_probabilities);
    for (const { timings } of answers) expect(timings.draft_n_accepted).toBeGreaterThan(0);
  }
});

it("a chat about an image goes on from the cached prompt", async () => {
  const question = {
    role: "user",
    content: [
      { type: "image_url", image_url: { url: `data:image/bmp;base64,${stripes(4)}` } },
      { type: "text", text: PROMPTS[1] },
    ],
  };
  const chats: { texts: string[]; cached: number }[] = [];
  for (const [id_slot, arm] of (["off", "on"] as const).entries()) {
    const ask = (messages: unknown[]): Promise<ChatAnswer> => {
      const body = { messages, max_tokens: 32, temperature: 0, id_slot };
      return stack.proxy.post<ChatAnswer>("/v1/chat/completions", body, { "x-aded": arm });
    };
    const first = (await ask([question])).choices[0].message;
    const follow = { role: "user", content: "Shorter, please." };
    const { choices, timings } = await ask([question, { role: "assistant", ...first }, follow]);
    const { cache_n } = timings as Completion["timings"];
    chats.push({ texts: [first.content, choices[0].message.content], cached: cache_n });
  }
  expect(chats[1]).toEqual(chats[0]);
  expect(chats[1].cached).toBeGreaterThan(32);
});

it("trees of text are verified by such an engine too, also where an image was before", async () => {
  const { tokens } = await complete(stack.proxy, { prompt: TURNS[2], n_predict: 4 }, "off");
  for (const id_slot of [0, 1, 2, 3])
    await complete(stack.proxy, { ...seen({ images: [5] }), n_predict: 2, id_slot }, "on");
  const trees = [{ tokens, parents: tokens.map((_, i) => i - 1) }];
  const verify = () =>
    stack.proxy.post<{ results: { trees: { accepted: number[] }[] }[] }>("/tree-verify", {
      prompt: TURNS[2],
      trees,
    });
  for (let i = 0; i < 2; i++)
    expect((await verify()).results[0].trees[0].accepted).toEqual(tokens.map((_, node) => node));
});

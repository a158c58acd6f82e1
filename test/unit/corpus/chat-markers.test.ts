import { describe, expect, it } from "@jest/globals";
import { readChatMarkers, renderTurns } from "../../../src/corpus/chat-markers.ts";
import type { Turn } from "../../../src/corpus/formats.ts";
import type { Vocabulary } from "../../../src/corpus/vocabulary.ts";

const vocabulary = (chatTemplate?: string): Vocabulary => ({
  hash: "0",
  size: 1,
  tokenizer: "test",
  bos: "<s>",
  eos: "</s>",
  chatTemplate,
});

const CHATML =
  "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}{% endif %}" +
  "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}";
/** Trims, has no system turns, and wants users and models to alternate. */
const TURNS =
  "{{ bos_token }}{% for message in messages %}" +
  "{% if message['role'] == 'system' or (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}{% endif %}" +
  "{{ '<turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' + message['content'] | trim + '</turn>\n' }}{% endfor %}";
/** No marker of its own before an answer. */
const INST =
  "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}" +
  "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}";

const talk: Turn[] = [
  { role: "user", text: "A?" },
  { role: "assistant", text: "B." },
  { role: "user", text: "C?" },
  { role: "assistant", text: "D." },
];

describe("role markers of a chat template", () => {
  it.each([
    [
      "ChatML with a default system prompt",
      CHATML,
      "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\nB.<|im_end|>\n" +
        "<|im_start|>user\nC?<|im_end|>\n<|im_start|>assistant\nD.<|im_end|>\n",
    ],
    [
      "turns",
      TURNS,
      "<s><turn>user\nA?</turn>\n<turn>model\nB.</turn>\n<turn>user\nC?</turn>\n<turn>model\nD.</turn>\n",
    ],
    ["INST", INST, "<s>[INST] A? [/INST] B. </s><s>[INST] C? [/INST] D. </s>"],
  ])("render a conversation as the template does: %s", (_name, template, expected) => {
    expect(renderTurns(talk, readChatMarkers(vocabulary(template)))).toBe(expected);
  });

  it("render a system turn instead of the default one", () => {
    const markers = readChatMarkers(vocabulary(CHATML));
    const turns: Turn[] = [
      { role: "system", text: "Be bad." },
      { role: "user", text: "A?" },
    ];
    expect(renderTurns(turns, markers)).toBe(
      "<|im_start|>system\nBe bad.<|im_end|>\n<|im_start|>user\nA?<|im_end|>\n",
    );
  });

  it("render what the template would refuse: an answer first, a system turn it knows nothing of", () => {
    const markers = readChatMarkers(vocabulary(TURNS));
    const answer: Turn = { role: "assistant", text: "B." };
    expect(renderTurns([answer], markers, false)).toBe("<turn>model\nB.</turn>\n");
    expect(renderTurns([{ role: "system", text: "S" }, answer], markers)).toBe("S<turn>model\nB.</turn>\n");
  });

  it("are refused with a reason when there are none", () => {
    expect(() => readChatMarkers(vocabulary())).toThrow("the model has no chat template");
    expect(() => readChatMarkers(vocabulary("{{ nothing("))).toThrow("can't be used");
    expect(() => readChatMarkers(vocabulary("hello"))).toThrow("changes what the turns say");
  });
});

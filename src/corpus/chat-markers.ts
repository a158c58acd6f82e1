/**
 * The role markers that a model's chat template puts around turns, so that a corpus holds them as they occur in serving. They are found
 * by rendering conversations of marks; what stands between the marks are the markers.
 */
import { Template } from "@huggingface/jinja";
import { AdedError, messageOf } from "../errors.ts";
import type { Role, Turn } from "./formats.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** What stands before and after a turn of each role. */
export type ChatMarkers = Readonly<Partial<Record<Role, { before: string; after: string }>>> & {
  /** What stands before the first turn (a default system prompt, say). */
  readonly head: string;
};

const MARKS = ["QAQFIRSTQAQ", "QAQSECONDQAQ", "QAQTHIRDQAQ"];

/** @throws AdedError ADED_CORPUS when the model has no template, or one that can't be taken apart */
export function readChatMarkers(vocabulary: Vocabulary): ChatMarkers {
  const { chatTemplate, bos, eos } = vocabulary;
  if (chatTemplate === undefined) {
    throw new AdedError("ADED_CORPUS", "the model has no chat template", {
      hint: "leave --template out: the texts are then counted without role markers",
    });
  }
  const render = (roles: readonly Role[]): string[] => {
    const messages = roles.map((role, i) => ({ role, content: MARKS[i] }));
    const text = new Template(chatTemplate).render({
      messages,
      bos_token: bos,
      eos_token: eos,
      add_generation_prompt: false,
    });
    const parts = text.split(/QAQ(?:FIRST|SECOND|THIRD)QAQ/);
    if (parts.length !== roles.length + 1) throw new Error("it changes what the turns say");
    return parts;
  };
  try {
    const [start, afterUser] = render(["user"]);
    const [, between, afterAssistant] = render(["user", "assistant"]);
    const [, , next] = render(["user", "assistant", "user"]);
    const userAfter = commonHead(afterUser, between);
    const assistantAfter = commonHead(afterAssistant, next);
    const userBefore = next.slice(assistantAfter.length);
    return {
      head: start.endsWith(userBefore) ? start.slice(0, start.length - userBefore.length) : "",
      user: { before: userBefore, after: userAfter },
      assistant: { before: between.slice(userAfter.length), after: assistantAfter },
      system: systemMarkers(render, userBefore),
    };
  } catch (error) {
    throw new AdedError("ADED_CORPUS", `the model's chat template can't be used: ${messageOf(error)}`, {
      hint: "leave --template out: the texts are then counted without role markers",
      cause: error,
    });
  }
}

/** Templates without system turns have none. */
function systemMarkers(
  render: (roles: readonly Role[]) => string[],
  userBefore: string,
): { before: string; after: string } | undefined {
  try {
    const [before, after] = render(["system", "user"]);
    return {
      before,
      after: after.endsWith(userBefore) ? after.slice(0, -userBefore.length || undefined) : after,
    };
  } catch {
    return undefined;
  }
}

/**
 * Turns as the template writes them; system turns of a model that knows none stand as plain text.
 * @param whole the turns are a conversation from its beginning
 */
export function renderTurns(turns: readonly Turn[], markers: ChatMarkers, whole = true): string {
  let text = whole && turns[0]?.role !== "system" ? markers.head : "";
  for (const { role, text: said } of turns) {
    const marker = role && markers[role];
    text += marker ? marker.before + said + marker.after : said;
  }
  return text;
}

/** What two texts begin with. */
function commonHead(x: string, y: string): string {
  let n = 0;
  while (n < x.length && n < y.length && x[n] === y[n]) n++;
  return x.slice(0, n);
}

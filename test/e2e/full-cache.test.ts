/** Drafts take cells of the KV cache that plain decoding does not need: where there are none left, they give way. */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { EXACT } from "./support/exact.ts";
import { type Arm, type Completion, complete, visible } from "./support/generate.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack } from "./support/stack.ts";

const SLOTS = 4;
/** Cells that all slots share. The engine rounds a context up to a multiple of 256. */
const CELLS = 512;
/** Of these, what each slot's request fills: the first one is still at work when the others have ended, and its last steps have no cells for a tree. */
const SHARES = [224, 96, 96, 96];

let stack: Stack;
afterAll(() => stack?.stop());

describe("four slots whose requests fill the cache to its last cell", () => {
  let requests: { prompt: number[]; n_predict: number; ignore_eos: boolean }[];
  const together = (arm: Arm): Promise<Completion[]> =>
    Promise.all(requests.map((request) => complete(stack.proxy, request, arm)));

  beforeAll(async () => {
    const args = ["-c", String(CELLS), "-np", String(SLOTS), "-kvu"];
    // large trees: no step may accept so much that it leaps over all those that have fewer cells left than their tree has nodes
    const drafter = { fixedNodes: 60, learnFromPlain: false };
    stack = await startStack({ ...EXACT, drafter, args: [...(EXACT.args ?? []), ...args] });
    requests = await Promise.all(
      TURNS.slice(0, SLOTS).map(async (prompt, slot) => {
        const { tokens } = await stack.proxy.post<{ tokens: number[] }>("/tokenize", {
          content: prompt,
          add_special: true,
          parse_special: true,
        });
        // the last token generated takes no cell
        return { prompt: tokens, n_predict: SHARES[slot] - tokens.length + 1, ignore_eos: true };
      }),
    );
  }, SETUP_MS);

  it("get the texts that they get without drafts, and all of them whole", async () => {
    const plain = await together("off");
    expect(stack.engineLog()).not.toContain("no space in the KV cache for the draft trees");
    const drafted = await together("on");
    expect(drafted.map(visible)).toEqual(plain.map(visible));
    expect(drafted.map(({ tokens }) => tokens.length)).toEqual(requests.map(({ n_predict }) => n_predict));
    for (const { timings } of drafted) expect(timings.draft_n_accepted).toBeGreaterThan(0);
    // the trees of the last steps found no cells, and no slot had to be emptied for them
    expect(stack.engineLog()).toContain("no space in the KV cache for the draft trees, running plain");
    expect(stack.engineLog()).not.toContain("Context size has been exceeded");
  });

  it("have a /tree-verify refused whose trees don't fit, and go on", async () => {
    const before = await complete(stack.proxy, requests[0], "on");
    const full = requests.map(({ prompt }) => [...prompt, ...before.tokens].slice(0, CELLS / SLOTS));
    const star = { tokens: before.tokens.slice(0, 60), parents: Array.from({ length: 60 }, () => -1) };
    const { status, body } = await stack.proxy.send("POST", "/tree-verify", {
      body: JSON.stringify({ prompts: full.map((prompt) => ({ prompt, trees: [star] })) }),
    });
    expect({ status, ...JSON.parse(body.toString()) }).toEqual({
      status: 503,
      error: { code: 503, type: "unavailable_error", message: "no space in the KV cache for the tree" },
    });
    expect(visible(await complete(stack.proxy, requests[0], "on"))).toEqual(visible(before));
  });
});

/** Whatever breaks, the worst case for drafting is a plain step; an engine that dies never leaves a text that looks complete. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { Packr } from "msgpackr";
import type { StreamEvent } from "./support/endpoint.ts";
import { EXACT } from "./support/exact.ts";
import { type Completion, complete } from "./support/generate.ts";
import { type Begin, type Frame, i32, numbers, Peer, type Step } from "./support/peer.ts";
import { TURNS } from "./support/prompts.ts";
import { SETUP_MS, type Stack, startStack, untilLinked } from "./support/stack.ts";

const N_VOCAB = 49152;
const PROMPT = TURNS[0];
const BODY = { prompt: PROMPT, n_predict: 40 };
const PATIENT = ["--draft-timeout-us", "1000000"];

let stack: Stack;
/** Tokens of the plain answer to BODY. */
let plain: number[];

const run = (): Promise<Completion> => complete(stack.proxy, BODY, "on");

async function start(options: Parameters<typeof startStack>[0]): Promise<void> {
  stack = await startStack(options);
  plain = (await complete(stack.proxy, BODY, "off")).tokens;
}

describe("a drafter's thread", () => {
  beforeAll(async () => {
    await start({ ...EXACT, drafterModule: new URL("./support/crashing-drafter.ts", import.meta.url).href });
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("that crashes takes nothing with it, and drafts again", async () => {
    const { drafting } = stack;
    const answers: Completion[] = [];
    while (answers.length < 3 || (drafting?.restarts ?? 0) < 2) {
      answers.push(await run());
      if (drafting) await untilLinked(drafting);
    }
    for (const { tokens } of answers) expect(tokens).toEqual(plain);
    expect(answers.at(-1)?.timings.draft_n).toBeGreaterThan(0);
    expect(stack.engine.snapshot()).toMatchObject({ state: "ready", restarts: 0 });
    expect(
      stack.engineLog().match(/link closed: the drafter has gone, decoding goes on plain/g),
    ).toHaveLength(drafting?.restarts ?? 0);
  });

  it("that is stopped in the middle of a stream leaves it whole", async () => {
    const { events } = await stack.proxy.stream("/completion", {
      ...BODY,
      stream: true,
      temperature: 0,
      return_tokens: true,
      cache_prompt: false,
    });
    const tokens: number[] = [];
    let last: { stop?: boolean } = {};
    for await (const { value } of events) {
      const event = JSON.parse(value) as { tokens: number[]; stop: boolean };
      if (tokens.length === 0) await stack.drafting?.stop();
      if (!event.stop) tokens.push(...event.tokens);
      last = event;
    }
    expect(last.stop).toBe(true);
    expect(tokens).toEqual(plain);
  });
});

describe("on the engine's socket", () => {
  beforeAll(async () => {
    await start({ ...EXACT, drafting: false, args: [...(EXACT.args ?? []), ...PATIENT] });
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  let peers: Peer[] = [];
  afterEach(async () => {
    for (const peer of peers) await peer.leave();
    peers = [];
  });

  async function connected(): Promise<Peer> {
    const peer = await Peer.connect(stack.draftSocket);
    peers.push(peer);
    return peer;
  }

  async function greeted(): Promise<Peer> {
    const peer = await Peer.greeted(stack.draftSocket);
    peers.push(peer);
    return peer;
  }

  /** The engine's answer while `reply` answers its steps; it must be the plain one. */
  async function generate(peer: Peer, reply: (step: Step) => void): Promise<Completion> {
    const [answer] = await Promise.all([run(), peer.answer(reply)]);
    expect(answer.tokens).toEqual(plain);
    return answer;
  }

  const draft = (step: Step, slots: unknown[]): Frame => ({ type: "draft", seq: step.seq, slots });
  const slotOf = (step: Step): number => step.slots[0].slot;

  /** Lines of the engine's log that match, of those that `work` caused. */
  async function logged(pattern: RegExp, work: () => Promise<void>): Promise<string[]> {
    const before = stack.engineLog().length;
    await work();
    const lines = (): string[] =>
      stack
        .engineLog()
        .slice(before)
        .split("\n")
        .filter((line) => pattern.test(line));
    // the log is written by another process
    for (let i = 0; i < 50 && lines().length === 0; i++) await delay(20);
    return lines();
  }

  it("good drafts are accepted, whatever their order", async () => {
    const peer = await greeted();
    // of this request: the last step of the one before may come late
    const emitted = (): number[] =>
      peer.frames
        .slice(peer.frames.map(({ type }) => type).lastIndexOf("begin"))
        .flatMap(({ type, slots }) => (type === "step" ? numbers((slots as Step["slots"])[0].accepted) : []));
    const { timings } = await generate(peer, (step) => {
      const [a = 5, b = 5, c = 5] = plain.slice(emitted().length);
      // the deepest node first, and one that is wrong
      const slots = [{ slot: slotOf(step), tokens: i32(c, 7, b, a), parents: i32(2, 3, 3, -1) }];
      peer.send(draft(step, slots));
    });
    expect(emitted()).toEqual(plain);
    expect(timings.draft_n_accepted).toBeGreaterThan(plain.length / 2);
  });

  const badDrafts: [name: string, fields: Record<string, unknown>, message: RegExp][] = [
    ["a cycle", { tokens: i32(5, 6, 7), parents: i32(2, 0, 1) }, /cycle/],
    ["a parent out of range", { tokens: i32(5, 6), parents: i32(-1, 2) }, /parents\[1\] = 2 is out of range/],
    ["a parent below -1", { tokens: i32(5), parents: i32(-7) }, /parents\[0\] = -7 is out of range/],
    [
      "an id beyond the vocabulary",
      { tokens: i32(N_VOCAB), parents: i32(-1) },
      /tokens\[0\] = 49152 is not in the vocabulary/,
    ],
    ["a negative id", { tokens: i32(-1), parents: i32(-1) }, /tokens\[0\] = -1 is not in the vocabulary/],
    ["lengths that differ", { tokens: i32(5, 6), parents: i32(-1) }, /2 tokens, but 1 parents/],
    [
      "too many nodes",
      { tokens: i32(...Array<number>(65).fill(5)), parents: i32(...Array<number>(65).fill(-1)) },
      /65 nodes, only 64 are left/,
    ],
  ];

  it("a bad draft is refused by name and ignored, and the link stays", async () => {
    const peer = await greeted();
    const lines = await logged(/\(error bad_draft\)/, async () => {
      let step = 0;
      const { timings } = await generate(peer, (asked) => {
        const [, fields] = badDrafts[step++ % badDrafts.length];
        peer.send(draft(asked, [{ slot: slotOf(asked), ...fields }]));
      });
      expect(timings.draft_n ?? 0).toBe(0);
      expect(step).toBeGreaterThanOrEqual(badDrafts.length);
    });
    const errors = peer.frames.filter(({ type }) => type === "error");
    for (const [i, [, , message]] of badDrafts.entries()) {
      expect(errors[i]).toMatchObject({ code: "bad_draft", message: expect.stringMatching(message) });
      expect(errors[i].slot).toBeGreaterThanOrEqual(0);
    }
    // at most one line a second
    expect(lines.length).toBeGreaterThanOrEqual(1);
    expect(lines.length).toBeLessThanOrEqual(errors.length);
  });

  it("a draft for a slot that does not generate, or of which there is none, is refused", async () => {
    const peer = await greeted();
    const tree = { tokens: i32(5), parents: i32(-1) };
    const lines = await logged(/\(error no_slot\)/, async () => {
      await generate(peer, (step) => {
        const idle = (slotOf(step) + 1) % 4;
        const mine = { slot: slotOf(step), ...tree };
        const wrong = [idle, 99, -1].map((slot) => ({ slot, ...tree }));
        peer.send(draft(step, step.seq % 2 === 0 ? [...wrong, mine] : [mine, mine]));
      });
    });
    const errors = peer.frames.filter(({ type }) => type === "error");
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(["no_slot"]));
    expect(errors.length).toBeGreaterThan(4);
    expect(lines.length).toBeGreaterThanOrEqual(1);
  });

  it("a draft for another step is late, also a second one for the same step", async () => {
    const peer = await greeted();
    const lines = await logged(/\(error late\)/, async () => {
      await generate(peer, (step) => {
        const slots = [{ slot: slotOf(step), tokens: i32(5), parents: i32(-1) }];
        for (const seq of [step.seq - 1, step.seq + 1, 2 ** 31, step.seq, step.seq])
          peer.send({ type: "draft", seq, slots });
      });
    });
    const errors = peer.frames.filter(({ type }) => type === "error");
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(["late"]));
    expect(lines.length).toBeGreaterThanOrEqual(1);
  });

  it("half a frame makes the step plain, its other half later is late", async () => {
    const peer = await greeted();
    let rest: Buffer | undefined;
    const { timings } = await generate(peer, (step) => {
      if (rest === undefined) {
        const body = new Packr({ useRecords: false }).pack(
          draft(step, [{ slot: slotOf(step), tokens: i32(5), parents: i32(-1) }]),
        );
        const header = Buffer.alloc(4);
        header.writeUInt32LE(body.length);
        peer.socket.write(Buffer.concat([header, body.subarray(0, 9)]));
        rest = body.subarray(9);
      } else if (rest.length > 0) {
        peer.socket.write(rest);
        rest = Buffer.alloc(0);
      } else {
        peer.send(draft(step, []));
      }
    });
    expect(timings.draft_n ?? 0).toBe(0);
    expect(peer.frames.filter(({ type }) => type === "error")).toMatchObject([{ code: "late" }]);
  });

  const pack = (value: unknown): Buffer =>
    new Packr({ useRecords: false, variableMapSize: true }).pack(value);
  const framed = (body: Buffer, length = body.length): Buffer => {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(length);
    return Buffer.concat([header, body]);
  };
  const tree = { slot: 0, tokens: i32(5), parents: i32(-1) };
  const fatal: [name: string, bytes: Buffer, code: string][] = [
    ["bytes that are no MessagePack", framed(Buffer.from("c1c1c1c1", "hex")), "bad_frame"],
    ["random bytes", framed(Buffer.from("93a7f0018cffee1200d9", "hex")), "bad_frame"],
    ["an array", framed(pack([1, 2, 3])), "bad_frame"],
    ["a map cut off", framed(pack({ type: "draft", seq: 1, slots: [] }).subarray(0, 12)), "bad_frame"],
    [
      "bytes after the map",
      framed(Buffer.concat([pack({ type: "draft", seq: 1, slots: [] }), Buffer.alloc(3)])),
      "bad_frame",
    ],
    ["a map that announces four billion entries", framed(Buffer.from("dfffffffff", "hex")), "bad_frame"],
    [
      "a bin that announces four gigabytes",
      framed(Buffer.from("81a474797065c6ffffffff", "hex")),
      "bad_frame",
    ],
    ["no type", framed(pack({ seq: 1 })), "bad_frame"],
    ["an unknown type", framed(pack({ type: "purge" })), "bad_frame"],
    ["a draft without seq", framed(pack({ type: "draft", slots: [] })), "bad_frame"],
    ["a draft without slots", framed(pack({ type: "draft", seq: 1 })), "bad_frame"],
    [
      "a slot without parents",
      framed(pack({ type: "draft", seq: 1, slots: [{ slot: 0, tokens: i32(5) }] })),
      "bad_frame",
    ],
    [
      "tokens in an array instead of a bin",
      framed(pack({ type: "draft", seq: 1, slots: [{ ...tree, tokens: [5] }] })),
      "bad_frame",
    ],
    [
      "a bin of three bytes",
      framed(pack({ type: "draft", seq: 1, slots: [{ ...tree, tokens: Buffer.alloc(3) }] })),
      "bad_frame",
    ],
    ["a seq that is a text", framed(pack({ type: "draft", seq: "1", slots: [] })), "bad_frame"],
    [
      "deep nesting",
      framed(Buffer.concat([Buffer.from("81a178", "hex"), Buffer.alloc(60_000, 0x91), Buffer.from([0xc0])])),
      "bad_frame",
    ],
    ["a frame of no bytes", framed(Buffer.alloc(0)), "too_large"],
    ["a frame over the limit", framed(Buffer.alloc(0), 2 ** 20 + 1), "too_large"],
    ["a frame of four gigabytes", framed(Buffer.alloc(0), 2 ** 32 - 1), "too_large"],
    ["a hello of another version", framed(pack({ type: "hello", version: 2, top_k: 4 })), "version"],
    ["a hello with top_k 0", framed(pack({ type: "hello", version: 1, top_k: 0 })), "bad_frame"],
    ["a hello with top_k 65", framed(pack({ type: "hello", version: 1, top_k: 65 })), "bad_frame"],
    ["a hello without top_k", framed(pack({ type: "hello", version: 1 })), "bad_frame"],
  ];

  it.each(fatal)("%s closes the link with one line in the log", async (_name, bytes, code) => {
    const peer = await greeted();
    const lines = await logged(/\bdrl\b(?!.*the drafter has gone).*(link closed|error)/, async () => {
      peer.socket.write(bytes);
      await peer.closed;
    });
    expect(peer.frames.at(-1)).toMatchObject({ type: "error", code });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(`(error ${code})`);
    expect(lines[0]).toContain("decoding goes on plain");
  });

  it("a draft before hello closes the link", async () => {
    const peer = await connected();
    await peer.next("hello");
    peer.send({ type: "draft", seq: 1, slots: [] });
    await peer.closed;
    expect(peer.frames.at(-1)).toMatchObject({
      type: "error",
      code: "bad_frame",
      message: "a draft before hello",
    });
  });

  it("a link that is closed in the middle of a request leaves it whole, and the next peer can draft for it", async () => {
    const first = await greeted();
    const answer = run();
    const prompt = numbers((await first.next<Begin>("begin")).tokens);
    const step = await first.nextAsk();
    first.send(draft(step, []));
    await first.nextAsk();
    first.socket.write(framed(Buffer.alloc(0)));
    await first.closed;
    const second = await greeted();
    const begin = await second.next<Begin>("begin");
    const held = numbers(begin.tokens);
    await second.answer((asked) =>
      second.send(draft(asked, [{ slot: slotOf(asked), tokens: i32(5), parents: i32(-1) }])),
    );
    const { tokens, timings } = await answer;
    expect(tokens).toEqual(plain);
    expect(timings.draft_n).toBeGreaterThan(0);
    // a new peer is told all that the slot holds: the prompt, and what was generated for the first one
    expect(begin.keep).toBe(0);
    expect(held.length).toBeGreaterThan(prompt.length);
    expect(held).toEqual([...prompt, ...plain.slice(0, held.length - prompt.length)]);
  });

  it("a second peer is turned away, the first one stays", async () => {
    const first = await greeted();
    const second = await connected();
    await second.closed;
    expect(second.frames).toMatchObject([{ type: "error", code: "busy" }]);
    let asked = 0;
    await generate(first, (step) => {
      asked++;
      first.send(draft(step, []));
    });
    expect(asked).toBeGreaterThan(5);
  });

  it("a peer that never says hello delays nothing", async () => {
    const peer = await connected();
    await peer.next("hello");
    expect((await run()).tokens).toEqual(plain);
    expect(peer.frames).toHaveLength(1);
  });

  it("a peer that asks to sleep is not asked for so long", async () => {
    const peer = await greeted();
    const seqs: number[] = [];
    await generate(peer, (step) => {
      seqs.push(step.seq);
      peer.send(draft(step, [{ slot: slotOf(step), tokens: i32(), parents: i32(), sleep: 5 }]));
    });
    expect(seqs.length).toBeGreaterThan(2);
    for (let i = 1; i < seqs.length; i++) expect(seqs[i] - seqs[i - 1]).toBeGreaterThanOrEqual(5);
  });
});

describe("a peer that never reads", () => {
  beforeAll(async () => {
    stack = await startStack({ drafting: false, args: ["--draft-timeout-us", "-1"] });
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("does not hold up decoding, and finds every frame whole when it reads again", async () => {
    const peer = await Peer.greeted(stack.draftSocket);
    peer.socket.pause();
    const request = { prompt: PROMPT, n_predict: 300, ignore_eos: true };
    const answers = await Promise.all(
      TURNS.slice(0, 4).map((prompt) => complete(stack.proxy, { ...request, prompt }, "on")),
    );
    for (const { tokens } of answers) expect(tokens).toHaveLength(300);
    peer.socket.resume();
    let ends = 0;
    while (ends < 4) {
      await peer.next("end");
      ends++;
    }
    const seqs = peer.frames.filter(({ type }) => type === "step").map(({ seq }) => seq);
    expect(seqs).toEqual(seqs.map((_, i) => i + 1));
    await peer.leave();
  });
});

describe("an engine that is killed", () => {
  beforeAll(async () => {
    stack = await startStack();
  }, SETUP_MS);
  afterAll(() => stack?.stop());

  it("leaves a stream that cannot be taken for complete, and is started again", async () => {
    const { engine, drafting } = stack;
    const { status, events } = await stack.proxy.stream("/v1/chat/completions", {
      messages: [{ role: "user", content: "Count from one to one thousand." }],
      max_tokens: 1000,
      stream: true,
    });
    expect(status).toBe(200);
    const seen: StreamEvent[] = [];
    const reading = (async () => {
      for await (const event of events) {
        seen.push(event);
        if (seen.length === 5) process.kill(engine.snapshot().pid as number, "SIGKILL");
      }
    })();
    await expect(reading).rejects.toThrow(/aborted/);
    expect(seen.length).toBeGreaterThan(5);
    const last = JSON.parse(seen.at(-1)?.value ?? "") as { error?: { message: string; type: string } };
    expect(last.error).toMatchObject({ type: "server_error" });
    expect(seen.some(({ value }) => value === "[DONE]" || /"finish_reason":"\w/.test(value))).toBe(false);

    const meanwhile = await stack.proxy.send("POST", "/completion", { body: "{}" });
    expect([502, 503]).toContain(meanwhile.status);
    while ((await stack.proxy.send("GET", "/readyz")).status !== 200) await delay(50);
    expect(engine.snapshot()).toMatchObject({ state: "ready", restarts: 1 });
    if (drafting) await untilLinked(drafting);
    const answer = await complete(stack.proxy, { prompt: PROMPT }, "on");
    expect(answer.timings.draft_n).toBeGreaterThan(0);
  });
});

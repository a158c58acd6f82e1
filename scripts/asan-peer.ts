/**
 * A peer of the draft link that does what no drafter should: garbage, oversized and truncated frames, wrong, late and
 * unasked drafts, floods, silence, deafness, and now and then a good draft, so that trees are verified too.
 */
import { connect, type Socket } from "node:net";
import { Packr } from "msgpackr";
import type { VerifiedSlot } from "../src/drafter/draft.ts";
import type { Random } from "../src/drafter/random.ts";
import { Framer, type OnBody } from "../src/link/framer.ts";
import { EngineFrameDecoder, MAX_ENGINE_BODY } from "../src/link/frames.ts";
import type { StepFrame } from "../src/link/step-reader.ts";

/** What one connection does. `ready`: `hello` has been exchanged. Without a handler for steps they are ignored. */
interface Behaviour {
  name: string;
  /** Sends no hello of its own. */
  rude?: boolean;
  ready?(link: Connection): void;
  step?(link: Connection, frame: StepFrame): void;
}

interface WireSlot {
  slot: number;
  tokens: Uint8Array;
  parents: Uint8Array;
  sleep?: number;
}

const packr = new Packr({ useRecords: false, variableMapSize: true });

const behaviours: readonly Behaviour[] = [
  { name: "garbage instead of hello", rude: true, ready: (link) => link.write(link.noise(400)) },
  {
    name: "draft before hello",
    rude: true,
    ready: (link) => link.send({ type: "draft", seq: 1, slots: [] }),
  },
  {
    name: "other version",
    rude: true,
    ready: (link) => link.send({ type: "hello", version: link.random.below(9) + 2, top_k: 4 }),
  },
  { name: "second hello", ready: (link) => link.send({ type: "hello", version: 1, top_k: 64 }) },
  { name: "garbage", step: (link) => link.write(link.noise(4000)) },
  {
    name: "frame too large",
    step: (link) => {
      const header = Buffer.alloc(4);
      header.writeUInt32LE([0, 0x100001, 0x7fffffff, 0xffffffff][link.random.below(4)]);
      link.write(header);
      link.write(link.noise(100_000));
    },
  },
  {
    name: "nested",
    step: (link) => link.frame(Buffer.alloc(1 << 20, [0x91, 0x81, 0x9f, 0xdd, 0xdf][link.random.below(5)])),
  },
  {
    name: "mutated drafts",
    step: (link, frame) => {
      const body = packr.pack({ type: "draft", seq: frame.seq, slots: link.goodSlots(frame) });
      for (let n = link.random.below(4) + 1; n > 0; n--)
        body[link.random.below(body.length)] = link.random.below(256);
      link.frame(body);
    },
  },
  {
    name: "wrong drafts",
    step: (link, frame) => link.send({ type: "draft", seq: frame.seq, slots: link.wrongSlots(frame) }),
  },
  {
    name: "late drafts",
    step: (link, frame) => {
      const { seq } = frame;
      const slots = link.goodSlots(frame);
      setTimeout(
        () => link.send({ type: "draft", seq, slots }),
        frame.budgetUs / 1000 + link.random.below(30),
      );
    },
  },
  {
    name: "unasked drafts",
    step: (link, frame) => {
      for (const seq of [0, -1, frame.seq - 1, frame.seq + 1, 2 ** 31, frame.seq, frame.seq]) {
        link.send({ type: "draft", seq, slots: link.goodSlots(frame) });
      }
    },
  },
  {
    name: "flood",
    step: (link) => {
      const one = link.framed(packr.pack({ type: "draft", seq: -1, slots: [] }));
      link.write(Buffer.concat(Array<Buffer>(20_000).fill(one)));
    },
  },
  {
    name: "many slots",
    step: (link, frame) => {
      const slot = { slot: -7, tokens: Buffer.alloc(0), parents: Buffer.alloc(0) };
      link.send({ type: "draft", seq: frame.seq, slots: Array<WireSlot>(20_000).fill(slot) });
    },
  },
  {
    name: "bytes trickle",
    step: (link, frame) => {
      const bytes = link.framed(packr.pack({ type: "draft", seq: frame.seq, slots: link.goodSlots(frame) }));
      for (const byte of bytes.subarray(0, bytes.length - link.random.below(2))) link.write(Buffer.of(byte));
    },
  },
  { name: "deaf", ready: (link) => link.deafen() },
  { name: "silent" },
  {
    name: "leaves in the middle of a frame",
    step: (link) => {
      link.write(Buffer.of(200, 0, 0, 0, 0x83, 0xa4));
      link.close();
    },
  },
  { name: "leaves", ready: (link) => link.close() },
  {
    name: "sleeps",
    step: (link, frame) => link.send({ type: "draft", seq: frame.seq, slots: link.sleepers(frame) }),
  },
];

/** Every third connection: what good drafts lead to (verification, kept paths) is to be watched too. */
const good: Behaviour = {
  name: "good drafts",
  step: (link, frame) => link.send({ type: "draft", seq: frame.seq, slots: link.goodSlots(frame) }),
};

/** One connection with one behaviour. */
class Connection {
  /** What followed each token last, of all connections: small models repeat themselves, so that some drafts are accepted. */
  static readonly #followers = new Map<number, number>();

  readonly random: Random;
  readonly #socket: Socket;
  readonly #behaviour: Behaviour;
  readonly #decoder = new EngineFrameDecoder();
  #nVocab = 0;
  #maxNodes = 0;
  #errors = 0;
  #stepsLeft: number;

  constructor(socket: Socket, behaviour: Behaviour, random: Random) {
    this.#socket = socket;
    this.#behaviour = behaviour;
    this.random = random;
    this.#stepsLeft = behaviour === good ? 6 : 1 + random.below(3);
  }

  /** Lives until the engine closes it, for a few steps that ask for drafts, or for `ms`. Resolves with the number of error frames. @throws when the engine sends a frame that breaks the protocol */
  run(ms: number): Promise<number> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      const framer = new Framer(MAX_ENGINE_BODY, (...body) => this.#onBody(...body));
      const timer = setTimeout(() => socket.destroy(), ms);
      socket.on("data", (chunk: Buffer) => {
        try {
          framer.push(chunk);
        } catch (error) {
          reject(error);
          socket.destroy();
        }
      });
      socket.on("error", () => {}); // resets belong to the game; "close" follows
      socket.on("close", () => {
        clearTimeout(timer);
        resolve(this.#errors);
      });
    });
  }

  #onBody(...body: Parameters<OnBody>): void {
    const frame = this.#decoder.decode(...body);
    if (frame.type === "hello") {
      this.#nVocab = frame.info.nVocab;
      this.#maxNodes = frame.info.maxNodes;
      if (!this.#behaviour.rude) this.send({ type: "hello", version: 1, top_k: this.random.below(16) + 1 });
      this.#behaviour.ready?.(this);
    } else if (frame.type === "error") {
      this.#errors++;
    } else if (frame.type === "step") {
      for (const slot of frame.step.slots) learn(Connection.#followers, slot);
      if (!frame.ask) return;
      if (this.#stepsLeft-- > 0) this.#behaviour.step?.(this, frame);
      else this.close();
    }
  }

  send(map: object): void {
    this.frame(packr.pack(map));
  }

  frame(body: Buffer): void {
    this.write(this.framed(body));
  }

  framed(body: Buffer): Buffer {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(body.length);
    return Buffer.concat([header, body]);
  }

  write(bytes: Buffer): void {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  close(): void {
    this.#socket.destroy();
  }

  deafen(): void {
    this.#socket.pause();
  }

  noise(length: number): Buffer {
    const bytes = Buffer.alloc(this.random.below(length) + 1);
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.random.below(256);
    return bytes;
  }

  /** Trees of what followed before, of what the model found likely, and of chance. */
  goodSlots(frame: StepFrame): WireSlot[] {
    const open = frame.step.slots.filter((slot) => slot.draft && slot.room > 0);
    const most = Math.floor(this.#maxNodes / Math.max(1, open.length));
    return open.map((slot) => this.#tree(slot, this.random.below(Math.min(most, slot.room) + 1)));
  }

  #tree(slot: VerifiedSlot, n: number): WireSlot {
    const tokens = new Int32Array(n);
    const parents = new Int32Array(n);
    const order = this.random.shuffle(Array.from({ length: n }, (_, i) => i));
    for (let i = 0; i < n; i++) {
      const parent =
        i === 0 || this.random.next() < 0.2 ? -1 : order[i - 1 - this.random.below(Math.min(i, 2))];
      const before = parent < 0 ? slot.accepted[slot.accepted.length - 1] : tokens[parent];
      const likely = slot.ids.length > 0 ? slot.ids[this.random.below(slot.ids.length)] : 0;
      const chance = this.random.next() < 0.5 ? likely : this.random.below(this.#nVocab);
      tokens[order[i]] = (this.random.next() < 0.8 ? Connection.#followers.get(before) : undefined) ?? chance;
      parents[order[i]] = parent;
    }
    return wire(slot.slot, tokens, parents);
  }

  wrongSlots(frame: StepFrame): WireSlot[] {
    return frame.step.slots.map(({ slot }) => {
      const any = (): number =>
        [-2147483648, -2, -1, 0, 1, 2, this.#nVocab - 1, this.#nVocab, 2147483647][this.random.below(9)];
      const n = this.random.below(this.random.next() < 0.1 ? 30_000 : 2 * this.#maxNodes);
      const tokens = Int32Array.from({ length: n }, any);
      const parents = Int32Array.from({ length: this.random.next() < 0.1 ? n + 1 : n }, any);
      return wire(this.random.next() < 0.2 ? any() : slot, tokens, parents);
    });
  }

  sleepers(frame: StepFrame): WireSlot[] {
    return this.goodSlots(frame).map((slot) => ({ ...slot, sleep: this.random.below(5) }));
  }
}

function learn(followers: Map<number, number>, slot: VerifiedSlot): void {
  for (let i = 0; i < slot.accepted.length; i++) {
    followers.set(i === 0 ? slot.nodes[0] : slot.accepted[i - 1], slot.accepted[i]);
  }
}

function wire(slot: number, tokens: Int32Array, parents: Int32Array): WireSlot {
  return { slot, tokens: Buffer.from(tokens.buffer), parents: Buffer.from(parents.buffer) };
}

export interface AttackReport {
  /** Connections by behaviour. */
  connections: Map<string, number>;
  /** Error frames that the engine answered with. */
  errors: number;
}

/** Connects again and again, each time with another behaviour, until the signal. @throws as Connection.run, and when connecting fails */
export async function attack(
  draftSocket: string,
  random: Random,
  signal: AbortSignal,
): Promise<AttackReport> {
  const report: AttackReport = { connections: new Map(), errors: 0 };
  for (let turn = 0; !signal.aborted; turn++) {
    const bad = turn - Math.floor((turn + 1) / 3);
    const behaviour = turn % 3 === 2 ? good : behaviours[bad % behaviours.length];
    const connection = new Connection(await open(draftSocket), behaviour, random);
    // a second one now and then: it has to be turned away
    const second = random.next() < 0.2 ? await open(draftSocket) : undefined;
    second?.on("error", () => {}).resume();
    report.errors += await connection.run(behaviour === good ? 2500 : 1000);
    second?.destroy();
    // the engine notices in its own time that its peer has gone, and turns away whoever comes before
    await new Promise((resolve) => setTimeout(resolve, 20));
    report.connections.set(behaviour.name, (report.connections.get(behaviour.name) ?? 0) + 1);
  }
  return report;
}

function open(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

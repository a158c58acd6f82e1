/** The other end of the draft link, written anew for the tests: it says whatever a test wants, right or wrong. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { Packr, Unpackr } from "msgpackr";

export interface Frame {
  type: string;
  [key: string]: unknown;
}

export interface Begin extends Frame {
  keep: number;
  tokens: Buffer;
}

export interface StepSlot {
  slot: number;
  accepted: Buffer;
  draft: boolean;
}

export interface Step extends Frame {
  seq: number;
  ask: boolean;
  slots: StepSlot[];
}

const HEADER = 4;

export class Peer {
  /** All that came, oldest first. */
  readonly frames: Frame[] = [];
  /** Settled when the engine has closed the connection. */
  readonly closed: Promise<unknown>;
  readonly socket: Socket;
  readonly #packr = new Packr({ useRecords: false, variableMapSize: true });
  readonly #unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: "number" });
  #pending: Buffer = Buffer.alloc(0);
  #read = 0;
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.closed = once(socket, "close").then(() => this.#wake?.());
    // what was sent may meet a connection that the engine has closed: `closed` tells
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
  }

  static async connect(socketPath: string): Promise<Peer> {
    const socket = connect(socketPath);
    const peer = new Peer(socket);
    await once(socket, "connect");
    return peer;
  }

  /** Connected, greeted, and ready to draft. */
  static async greeted(socketPath: string): Promise<Peer> {
    const peer = await Peer.connect(socketPath);
    await peer.next("hello");
    peer.send({ type: "hello", version: 1, top_k: 4 });
    return peer;
  }

  send(frame: unknown): void {
    this.sendBody(this.#packr.pack(frame));
  }

  sendBody(body: Buffer): void {
    const header = Buffer.alloc(HEADER);
    header.writeUInt32LE(body.length);
    this.socket.write(Buffer.concat([header, body]));
  }

  /** The next frame of this type that was not taken yet; those before it are skipped. @throws when the connection ends first */
  async next<T extends Frame>(type: T["type"]): Promise<T> {
    for (;;) {
      while (this.#read < this.frames.length) {
        const frame = this.frames[this.#read++];
        if (frame.type === type) return frame as T;
      }
      if (this.socket.closed) throw new Error(`the engine closed the link instead of sending "${type}"`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The next step that asks for drafts. */
  async nextAsk(): Promise<Step> {
    for (;;) {
      const step = await this.next<Step>("step");
      if (step.ask) return step;
    }
  }

  /** Answers every step that asks until the request ends. */
  async answer(reply: (step: Step) => void): Promise<void> {
    for (;;) {
      while (this.#read < this.frames.length) {
        const frame = this.frames[this.#read++];
        if (frame.type === "end") return;
        if (frame.type === "step" && (frame as Step).ask) reply(frame as Step);
      }
      if (this.socket.closed) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async leave(): Promise<void> {
    this.socket.destroy();
    await this.closed;
  }

  #take(chunk: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    while (this.#pending.length >= HEADER) {
      const end = HEADER + this.#pending.readUInt32LE();
      if (this.#pending.length < end) break;
      this.frames.push(this.#unpackr.unpack(this.#pending.subarray(HEADER, end)) as Frame);
      this.#pending = this.#pending.subarray(end);
    }
    this.#wake?.();
  }
}

/** Numbers as the link carries them. */
export function i32(...values: number[]): Buffer {
  return Buffer.from(Int32Array.from(values).buffer);
}

/** The other way round. */
export function numbers(bin: Buffer): number[] {
  return Array.from({ length: bin.length / 4 }, (_, i) => bin.readInt32LE(4 * i));
}

/**
 * This side's end of the draft link: connects to the engine's socket for as long as it is not stopped, feeds the drafter
 * with what comes and answers each step that asks. Everything happens synchronously as bytes arrive, because the engine
 * waits for the answer.
 */
import { connect, type Socket } from "node:net";
import type { Drafter, EngineInfo, SlotDraft } from "../drafter/draft.ts";
import { messageOf } from "../errors.ts";
import { Framer } from "./framer.ts";
import {
  EngineFrameDecoder,
  type ErrorFrame,
  LinkFrameError,
  MAX_ENGINE_BODY,
  PeerFrameEncoder,
} from "./frames.ts";
import type { LatencyRing } from "./latency.ts";
import type { StepFrame } from "./step-reader.ts";

export type LinkState = "connected" | "connecting" | "off";

/** What the link has to say; a pino logger is one. */
export interface LinkLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface DraftLinkOptions {
  /** Path of the engine's Unix socket. */
  socketPath: string;
  /** Successors per node to ask the engine for, 1 … 64. */
  topK: number;
  /** Called for the first connection, and when another model, or another shape of it, says hello. */
  createDrafter(info: EngineInfo): Drafter;
  log: LinkLog;
  /** Step received → reply ready to be written, µs. */
  draftLatency: LatencyRing;
  /** The part of it that is decoding and encoding, µs. */
  linkLatency: LatencyRing;
  /** What each exchange added to the engine's step, as the engine measures it: with the way there and back, µs. */
  exchangeLatency: LatencyRing;
  /** Told of each change of state. */
  onState?(state: LinkState): void;
  /** Told when an `end` frame left no request under way. */
  onRest?(): void;
  /** Waits between attempts double from `firstMs` to `maxMs`. @default 50 … 2000 ms */
  backoff?: { firstMs: number; maxMs: number };
}

export interface LinkCounters {
  /** Connections that reached `hello`. */
  connections: number;
  /** Drafts that came too late for the engine. */
  late: number;
  /** Drafts that the engine refused. */
  refused: number;
}

const NO_DRAFTS: readonly SlotDraft[] = [];
/** A step of seven nodes with 12 successors each takes 1 kB. */
const RECEIVE_BYTES = 64 * 1024;
const NOTICE_EVERY_MS = 1000;

export class DraftLinkClient {
  readonly counters: LinkCounters = { connections: 0, late: 0, refused: 0 };
  readonly #options: DraftLinkOptions;
  readonly #encoder = new PeerFrameEncoder();
  readonly #firstMs: number;
  readonly #maxMs: number;
  /** Slots that began and have not ended, with the request's id. */
  readonly #active = new Map<number, number>();
  #decoder = new EngineFrameDecoder();
  /** What the socket brings; frames are views of it, so nothing may keep one. */
  readonly #received = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  #state: LinkState = "off";
  #socket: Socket | undefined;
  #framer: Framer | undefined;
  #retry: NodeJS.Timeout | undefined;
  #waitMs: number;
  #helloAt = 0;
  #lastFailure = "";
  /** When the frame being worked on arrived, ms. */
  #receivedAt = 0;
  #noticeAt = Number.NEGATIVE_INFINITY;
  #unnoticed = 0;
  #info: EngineInfo | undefined;
  #drafter: Drafter | undefined;

  constructor(options: DraftLinkOptions) {
    this.#options = options;
    this.#firstMs = options.backoff?.firstMs ?? 50;
    this.#maxMs = options.backoff?.maxMs ?? 2000;
    this.#waitMs = this.#firstMs;
  }

  get state(): LinkState {
    return this.#state;
  }

  /** What the engine last said of itself. */
  get info(): EngineInfo | undefined {
    return this.#info;
  }

  get drafter(): Drafter | undefined {
    return this.#drafter;
  }

  /** Whether no request is under way. */
  get atRest(): boolean {
    return this.#active.size === 0;
  }

  /** Connects, and again whenever the connection is lost, until `stop`. */
  start(): void {
    if (this.#state !== "off") return;
    this.#waitMs = this.#firstMs;
    this.#setState("connecting");
    this.#connect();
  }

  /** Ends a wait between two attempts: there is reason to believe that the engine listens now. */
  retryNow(): void {
    if (this.#retry === undefined) return;
    clearTimeout(this.#retry);
    this.#waitMs = this.#firstMs;
    this.#retry = undefined;
    this.#connect();
  }

  stop(): void {
    if (this.#state === "off") return;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#setState("off");
    this.#leave();
  }

  #setState(state: LinkState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.onState?.(state);
  }

  #connect(): void {
    const framer = new Framer(MAX_ENGINE_BODY, (bytes, start, end) => this.#onBody(bytes, start, end));
    const socket = connect({
      path: this.#options.socketPath,
      // into one buffer for all: otherwise each read allocates 64 KiB, and the collector follows it around
      onread: {
        buffer: this.#received,
        callback: (length) => {
          receive(length);
          return true;
        },
      },
    });
    this.#socket = socket;
    this.#framer = framer;
    this.#decoder = new EngineFrameDecoder();
    let failure = "the engine closed it";
    socket.on("connect", () => socket.write(this.#encoder.hello(this.#options.topK)));
    const receive = (length: number): void => {
      this.#receivedAt = performance.now();
      try {
        framer.push(this.#received, length);
      } catch (error) {
        if (!(error instanceof LinkFrameError)) throw error;
        failure = error.message;
        framer.stop();
        socket.write(this.#encoder.error(error.fault, error.message));
        socket.destroySoon();
      }
    };
    socket.on("error", (error) => {
      failure = messageOf(error);
    });
    socket.on("close", () => {
      if (this.#socket !== socket) return;
      this.#leave();
      this.#onLost(failure);
    });
  }

  /** Lets go of the socket and ends what was active, so that the drafter sees every begin ended. */
  #leave(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    this.#framer?.stop();
    socket?.destroy();
    for (const [slot, id] of this.#active) this.#drafter?.end(slot, id, "error");
    this.#active.clear();
  }

  #onLost(failure: string): void {
    const { log, socketPath } = this.#options;
    const wasConnected = this.#state === "connected";
    // A connection that held shows that the engine is well; one that ends at once must not be retried at full speed.
    if (wasConnected && performance.now() - this.#helloAt >= this.#maxMs) this.#waitMs = this.#firstMs;
    this.#setState("connecting");
    const fields = { socket: socketPath, reason: failure, retry_ms: this.#waitMs };
    if (wasConnected || failure !== this.#lastFailure) {
      const expected = /ENOENT|ECONNREFUSED/.test(failure);
      if (expected) log.debug(fields, "draft link: waiting for the engine's socket");
      else log.warn(fields, "draft link lost, decoding goes on without drafts");
    }
    this.#lastFailure = failure;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#connect();
    }, this.#waitMs);
    this.#waitMs = Math.min(this.#waitMs * 2, this.#maxMs);
  }

  #onBody(bytes: Buffer, start: number, end: number): void {
    const receivedAt = this.#receivedAt;
    const frame = this.#decoder.decode(bytes, start, end);
    switch (frame.type) {
      case "step":
        this.#onStep(frame, receivedAt);
        break;
      case "begin":
        this.#active.set(frame.request.slot, frame.request.id);
        this.#drafter?.begin(frame.request);
        break;
      case "end":
        this.#active.delete(frame.slot);
        this.#drafter?.end(frame.slot, frame.id, frame.reason);
        if (this.atRest) this.#options.onRest?.();
        break;
      case "hello":
        this.#onHello(frame.info);
        break;
      case "error":
        this.#onError(frame);
        break;
    }
    // A further frame of the same chunk is taken up only now.
    this.#receivedAt = performance.now();
  }

  #onStep(frame: StepFrame, receivedAt: number): void {
    const drafter = this.#drafter;
    if (drafter === undefined) return;
    const decodedAt = performance.now();
    const { spentUs = 0 } = frame.step;
    if (spentUs > 0) this.#options.exchangeLatency.record(spentUs);
    drafter.observe(frame.step);
    if (!frame.ask) return;
    const drafts = drafter.draft(frame.step);
    const draftedAt = performance.now();
    const reply = this.#encodeDraft(frame.seq, drafts);
    // before it is written: the engine goes on as soon as it has it, and may take this thread's core for its step
    const readyAt = performance.now();
    this.#write(reply);
    this.#options.draftLatency.record((readyAt - receivedAt) * 1000);
    this.#options.linkLatency.record((decodedAt - receivedAt + readyAt - draftedAt) * 1000);
  }

  #write(draft: Buffer): void {
    const socket = this.#socket;
    if (socket === undefined) return;
    socket.write(draft);
    // most are with the kernel by now; one that is not is still needed
    if (socket.writableLength > 0) this.#encoder.keepDraft();
  }

  /** A draft too large to send is none; the answer goes out all the same, so that the engine need not wait. */
  #encodeDraft(seq: number, drafts: readonly SlotDraft[]): Buffer {
    try {
      return this.#encoder.draft(seq, drafts);
    } catch (error) {
      if (!(error instanceof LinkFrameError)) throw error;
      this.counters.refused++;
      return this.#encoder.draft(seq, NO_DRAFTS);
    }
  }

  #onHello(info: EngineInfo): void {
    if (this.#drafter === undefined || this.#info === undefined || !sameShape(this.#info, info)) {
      this.#drafter = this.#options.createDrafter(info);
    }
    this.#info = info;
    this.#helloAt = performance.now();
    this.#lastFailure = "";
    this.counters.connections++;
    this.#options.log.info(
      {
        file: info.model,
        slots: info.nSlots,
        max_nodes: info.maxNodes,
        shape: info.tree ? "tree" : "chain",
      },
      "draft link connected",
    );
    this.#setState("connected");
  }

  /** Late drafts are counted only; other refusals are logged at most once a second. */
  #onError(frame: ErrorFrame): void {
    if (frame.code === "late") this.counters.late++;
    if (frame.code === "late" || frame.code === "no_slot") return;
    if (frame.code === "bad_draft") this.counters.refused++;
    const now = performance.now();
    if (now - this.#noticeAt < NOTICE_EVERY_MS) {
      this.#unnoticed++;
      return;
    }
    const fields = { code: frame.code, reason: frame.message, slot: frame.slot, unlogged: this.#unnoticed };
    this.#options.log.warn(fields, "draft link: the engine refused a frame");
    this.#noticeAt = now;
    this.#unnoticed = 0;
  }
}

/** True if what a drafter learnt from one engine holds for the other; the cost table is kept current by the steps. */
function sameShape(a: EngineInfo, b: EngineInfo): boolean {
  return (
    a.vocabHash === b.vocabHash &&
    a.nVocab === b.nVocab &&
    a.model === b.model &&
    a.nSlots === b.nSlots &&
    a.maxNodes === b.maxNodes &&
    a.tree === b.tree &&
    a.maxChain === b.maxChain &&
    a.topK === b.topK
  );
}

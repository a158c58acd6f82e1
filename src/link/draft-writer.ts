/**
 * Writes `draft` frames (docs/protocol.md, 1.4) without allocating anything: one goes out at nearly every step of the engine, and what a general
 * encoder leaves behind of each is what the garbage collector would be woken for.
 */
import type { SlotDraft } from "../drafter/draft.ts";

/** As MessagePack, all that is the same in every frame: its beginning, and the keys. */
const BEGIN = Uint8Array.of(0x83, ...text("type"), ...text("draft"), ...text("seq"));
const SLOTS = text("slots");
const SLOT = text("slot");
const TOKENS = text("tokens");
const PARENTS = text("parents");
const SLEEP = text("sleep");
/** The engine cuts sleeps to that, steps. */
const MOST_SLEEP = 1024;
const INT_BYTES = 5;
const FIRST_BYTES = 4096;

/** A text of up to 31 bytes. */
function text(value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  return Uint8Array.of(0xa0 | bytes.length, ...bytes);
}

/** Most bytes that the body of a frame with these drafts may have. */
export function draftBytes(drafts: readonly SlotDraft[]): number {
  let bytes = BEGIN.length + SLOTS.length + 2 * INT_BYTES;
  for (let i = 0; i < drafts.length; i++) {
    bytes += 1 + SLOT.length + TOKENS.length + PARENTS.length + SLEEP.length + 4 * INT_BYTES;
    bytes += drafts[i].tokens.byteLength + drafts[i].parents.byteLength;
  }
  return bytes;
}

export class DraftWriter {
  #bytes: Buffer = Buffer.allocUnsafeSlow(FIRST_BYTES);
  /** Views on the first n bytes, by n. */
  #views: (Buffer | undefined)[] = [];
  #at = 0;

  /**
   * A frame with its length in front; a slot with neither nodes nor a sleep is left out. The bytes are overwritten by the next one, unless `keep` is
   * called before.
   *
   * @param bytes what `draftBytes` says of the drafts
   */
  write(seq: number, drafts: readonly SlotDraft[], bytes: number): Buffer {
    if (4 + bytes > this.#bytes.length) this.#renew(2 * (4 + bytes));
    this.#at = 4;
    this.#put(BEGIN);
    this.#int(seq);
    this.#put(SLOTS);
    let count = 0;
    for (let i = 0; i < drafts.length; i++) if (speaks(drafts[i])) count++;
    this.#head(0x90, 0xdc, count);
    for (let i = 0; i < drafts.length; i++) if (speaks(drafts[i])) this.#slot(drafts[i]);
    this.#bytes.writeUInt32LE(this.#at - 4, 0);
    let view = this.#views[this.#at];
    if (view === undefined) {
      view = this.#bytes.subarray(0, this.#at);
      this.#views[this.#at] = view;
    }
    return view;
  }

  /** The last frame's bytes stay as they are: the next one is written elsewhere. */
  keep(): void {
    this.#renew(this.#bytes.length);
  }

  #renew(bytes: number): void {
    this.#bytes = Buffer.allocUnsafeSlow(bytes);
    this.#views = [];
  }

  #slot(draft: SlotDraft): void {
    this.#head(0x80, 0xde, draft.sleep > 0 ? 4 : 3);
    this.#put(SLOT);
    this.#int(draft.slot);
    this.#put(TOKENS);
    this.#bin(draft.tokens);
    this.#put(PARENTS);
    this.#bin(draft.parents);
    if (draft.sleep > 0) {
      this.#put(SLEEP);
      this.#int(Math.min(draft.sleep, MOST_SLEEP));
    }
  }

  #put(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) this.#bytes[this.#at++] = bytes[i];
  }

  /** A map's or an array's head: `short` | n up to 15 entries, else `long` and two bytes. */
  #head(short: number, long: number, n: number): void {
    if (n < 16) {
      this.#bytes[this.#at++] = short | n;
    } else {
      this.#bytes[this.#at++] = long;
      this.#bytes[this.#at++] = n >>> 8;
      this.#bytes[this.#at++] = n;
    }
  }

  /** @param value 0 … 2³²−1 */
  #int(value: number): void {
    if (value < 128) this.#bytes[this.#at++] = value;
    else {
      this.#bytes[this.#at++] = 0xce;
      this.#at = this.#bytes.writeUInt32BE(value, this.#at);
    }
  }

  #bin(values: Int32Array): void {
    this.#bytes[this.#at++] = 0xc6;
    this.#at = this.#bytes.writeUInt32BE(values.byteLength, this.#at);
    for (let i = 0; i < values.length; i++) this.#at = this.#bytes.writeInt32LE(values[i], this.#at);
  }
}

function speaks(draft: SlotDraft): boolean {
  return draft.tokens.length > 0 || draft.sleep > 0;
}

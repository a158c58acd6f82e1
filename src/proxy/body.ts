/** Collects a request body as bytes, up to a cap. */
import type { IncomingMessage } from "node:http";

export interface BodyCallbacks {
  done(body: Buffer): void;
  /** More than `limit` bytes came, or were announced. What is still to come is left to the caller. */
  tooLarge(): void;
}

const EMPTY = Buffer.alloc(0);

/** True when the request announces a body of more than `limit` bytes. */
export function announcesMoreThan(request: IncomingMessage, limit: number): boolean {
  return Number(request.headers["content-length"] ?? 0) > limit;
}

/** True when a body follows the headers. */
export function hasBody(request: IncomingMessage): boolean {
  const { "content-length": length, "transfer-encoding": coding } = request.headers;
  return coding !== undefined || (length !== undefined && length !== "0");
}

/** Calls one of the callbacks once, or none when the client leaves before its body is complete. */
export function collectBody(request: IncomingMessage, limit: number, callbacks: BodyCallbacks): void {
  const chunks: Buffer[] = [];
  let size = 0;
  const onData = (chunk: Buffer): void => {
    size += chunk.length;
    if (size <= limit) {
      chunks.push(chunk);
      return;
    }
    request.off("data", onData);
    request.off("end", onEnd);
    chunks.length = 0;
    callbacks.tooLarge();
  };
  const onEnd = (): void => {
    if (chunks.length === 0) callbacks.done(EMPTY);
    else callbacks.done(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, size));
  };
  request.on("data", onData);
  request.on("end", onEnd);
}

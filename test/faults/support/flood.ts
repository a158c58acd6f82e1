/** A source that writes as fast as it is let, and tells when it is not. */
import { ServerResponse } from "node:http";
import type { Writable } from "node:stream";

/** Writes `total` bytes as fast as they are taken; `stalled` is settled when nothing was taken for 300 ms. */
export function flood(sink: Writable, total: number): { stalled: Promise<void>; sent(): number } {
  const piece = Buffer.alloc(64 << 10, "x");
  let sent = 0;
  const stalled = new Promise<void>((resolve) => {
    const push = (): void => {
      while (sent < total) {
        sent += piece.length;
        if (sink.write(piece)) continue;
        const timer = setTimeout(resolve, 300);
        sink.once("drain", () => {
          clearTimeout(timer);
          push();
        });
        return;
      }
      if (sink instanceof ServerResponse) sink.end();
    };
    push();
  });
  return { stalled, sent: () => sent };
}

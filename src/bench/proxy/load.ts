/** Load on bare sockets: kept-alive connections, each with one small request under way, or with one event stream. */
import { connect, type Socket } from "node:net";

/** About what a short chat sends, 1.3 kB. */
const BODY = JSON.stringify({
  model: "origin",
  messages: [{ role: "user", content: "x".repeat(1200) }],
  max_tokens: 16,
});

function request(extra = ""): Buffer {
  return Buffer.from(
    `POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\n${extra}Content-Length: ${BODY.length}\r\n\r\n${BODY}`,
  );
}

const SMALL = request();

export interface Load {
  /** Milliseconds of each request, in the order in which they ended. */
  latencies: number[];
  /** Wall time, s. */
  seconds: number;
}

/** Sends requests over `connections` connections, for `seconds` at most and `requests` at most. @throws on any answer but 200 */
export async function smallRequests(
  port: number,
  {
    connections,
    seconds,
    requests = Number.POSITIVE_INFINITY,
  }: { connections: number; seconds: number; requests?: number },
): Promise<Load> {
  const latencies: number[] = [];
  const sockets = await Promise.all(Array.from({ length: connections }, () => open(port)));
  const began = performance.now();
  const ends = began + seconds * 1000;
  let left = requests;
  try {
    await Promise.all(
      sockets.map(
        (socket) =>
          new Promise<void>((resolve, reject) => {
            let sentAt = 0;
            let missing = 0;
            const send = (): void => {
              if (left <= 0 || performance.now() >= ends) {
                resolve();
                return;
              }
              left--;
              sentAt = performance.now();
              socket.write(SMALL);
            };
            socket.on("error", reject);
            socket.on("close", () => reject(new Error("the connection was closed")));
            socket.on("data", (chunk: Buffer) => {
              if (missing === 0) {
                const end = chunk.indexOf("\r\n\r\n");
                const head = chunk.toString("latin1", 0, end);
                if (end < 0 || !head.startsWith("HTTP/1.1 200")) {
                  reject(new Error(chunk.toString("latin1", 0, 200)));
                  return;
                }
                missing = end + 4 + Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1]);
              }
              missing -= chunk.length;
              if (missing > 0) return;
              latencies.push(performance.now() - sentAt);
              send();
            });
            send();
          }),
      ),
    );
  } finally {
    for (const socket of sockets) socket.destroy();
  }
  return { latencies, seconds: (performance.now() - began) / 1000 };
}

export interface Streams {
  /** Streams that came to their end with every event. */
  complete: number;
  /** Longest wait for the next event of any stream, ms. */
  longestGapMs: number;
}

/** Opens `count` event streams at once and reads them to their end. */
export async function manyStreams(
  port: number,
  { count, events, gapMs }: { count: number; events: number; gapMs: number },
): Promise<Streams> {
  const asked = request(`x-events: ${events}\r\nx-gap: ${gapMs}\r\n`);
  let longestGapMs = 0;
  const results = await Promise.all(
    Array.from({ length: count }, async () => {
      const socket = await open(port);
      let text = "";
      let last = 0;
      const whole = await new Promise<boolean>((resolve) => {
        socket.on("data", (chunk: Buffer) => {
          const now = performance.now();
          if (last !== 0) longestGapMs = Math.max(longestGapMs, now - last);
          last = now;
          text += chunk.toString("latin1");
          if (text.endsWith("0\r\n\r\n")) resolve(text.split("data: ").length - 1 === events);
        });
        socket.on("error", () => resolve(false));
        socket.on("close", () => resolve(false));
        socket.write(asked);
      });
      socket.destroy();
      return whole;
    }),
  );
  return { complete: results.filter(Boolean).length, longestGapMs };
}

function open(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true }, () => {
      socket.off("error", reject);
      resolve(socket);
    });
    socket.once("error", reject);
  });
}

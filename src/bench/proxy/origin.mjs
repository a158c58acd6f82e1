/**
 * An origin that answers at once, for measuring what stands in front of it: Node's bare sockets, one fixed answer. A request with
 * `x-events` gets an event stream instead: so many events, one every `x-gap` ms. Tells its port over IPC. Plain JavaScript: nothing to load.
 */
import { createServer } from "node:net";

const BODY = Buffer.from(JSON.stringify({ object: "text_completion", choices: [{ text: "x".repeat(160) }] }));
const ANSWER = Buffer.concat([
  Buffer.from(
    `HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${BODY.length}\r\n\r\n`,
  ),
  BODY,
]);
const STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

const server = createServer({ noDelay: true }, (socket) => {
  let rest = Buffer.alloc(0);
  socket.on("error", () => {});
  socket.on("data", (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      const end = rest.indexOf("\r\n\r\n");
      if (end < 0) return;
      const head = rest.latin1Slice(0, end);
      const total = end + 4 + number(head, "content-length");
      if (rest.length < total) return;
      rest = rest.subarray(total);
      const events = number(head, "x-events");
      if (events > 0) stream(socket, events, number(head, "x-gap"));
      else socket.write(ANSWER);
    }
  });
});

function number(head, name) {
  return Number(new RegExp(`\r\n${name}: *(\\d+)`, "i").exec(head)?.[1] ?? 0);
}

function stream(socket, events, gap) {
  socket.write(STREAM);
  let sent = 0;
  const timer = setInterval(() => {
    if (socket.destroyed) return clearInterval(timer);
    const event = `data: {"n":${sent++}}\n\n`;
    socket.write(`${event.length.toString(16)}\r\n${event}\r\n`);
    if (sent < events) return;
    clearInterval(timer);
    socket.write("0\r\n\r\n");
  }, gap);
}

server.listen(0, "127.0.0.1", () => process.send?.({ port: server.address().port }));
process.on("disconnect", () => process.exit(0));

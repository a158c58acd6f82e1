/** The error event that closes a broken event stream, in the dialect of the API that the stream belongs to. */
import type { ErrorBody } from "./faults.ts";

export type StreamDialect = "openai" | "anthropic";

/** True when these response headers announce an event stream whose bytes can be added to. */
export function isPlainEventStream(
  contentType: string | undefined,
  contentEncoding: string | undefined,
): boolean {
  if (contentType === undefined || !/^\s*text\/event-stream\s*(;|$)/i.test(contentType)) return false;
  return contentEncoding === undefined || contentEncoding.trim().toLowerCase() === "identity";
}

/**
 * The bytes of an error event. They begin with a blank line: what the engine sent last may have ended in the middle of an
 * event, and the error must never become a part of it. OpenAI's dialect is llama-server's `data: {"error":…}`;
 * Anthropic's names the event.
 */
export function errorEvent(body: ErrorBody, dialect: StreamDialect): string {
  if (dialect === "anthropic") {
    const data = { type: "error", error: { type: "api_error", message: body.error.message } };
    return `\n\nevent: error\ndata: ${JSON.stringify(data)}\n\n`;
  }
  return `\n\ndata: ${JSON.stringify(body)}\n\n`;
}

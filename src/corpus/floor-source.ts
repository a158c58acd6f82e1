/**
 * Reads the corpora of a model in a process of its own and hands back their floor: serving neither waits for it nor
 * shares a heap with it, and whatever DuckDB took is given back when it ends.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { spawnGroup } from "../engine/child.ts";
import { atLowPriority } from "../engine/low-priority.ts";
import { AdedError, messageOf } from "../errors.ts";
import type { FloorAnswer, FloorRequest } from "./floor-messages.ts";
import { pauseWhile } from "./pauses.ts";

export interface LoadedFloor extends FloorAnswer {
  /** For `FloorTable`. */
  buffer: SharedArrayBuffer;
}

export interface LoadOptions {
  /** Aborting ends the process. */
  signal?: AbortSignal;
  /** Whether somebody is being answered: then reading mostly stands still (pauses.ts); with it, it is at low priority all the time. @default neither */
  busy?: () => boolean;
}

/** How long a process that was told to end may take, ms. */
const GRACE_MS = 500;

/**
 * @throws AdedError ADED_CORPUS that names the corpus and what is wrong with it; the signal's reason when aborted
 */
export async function loadFloor(
  request: FloorRequest,
  { signal, busy }: LoadOptions = {},
): Promise<LoadedFloor> {
  signal?.throwIfAborted();
  for (const { file } of request.corpora) {
    if (existsSync(file)) continue;
    throw new AdedError("ADED_CORPUS", `there is no corpus ${file}`, {
      hint: "check the path (relative ones start at the config file), or make one with: npx aded corpus build",
    });
  }
  const program = fileURLToPath(new URL("./floor-process-boot.mjs", import.meta.url));
  const reading: [string, ...string[]] = [process.execPath, program, JSON.stringify(request)];
  const [command, ...args] = busy === undefined ? reading : atLowPriority(...reading);
  const child = spawnGroup(command, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, UV_THREADPOOL_SIZE: "1" },
  });
  const goOn = child.pid !== undefined && busy !== undefined ? pauseWhile(child.pid, busy) : () => {};
  const stop = (): void => {
    goOn();
    child.kill("SIGTERM");
    setTimeout(() => child.kill("SIGKILL"), GRACE_MS).unref();
  };
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const ended = new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    let words = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      words = (words + text).slice(-2000);
    });
    const [answer] = await Promise.all([readAnswer(child.stdout as AsyncIterable<Buffer>), ended]);
    signal?.throwIfAborted();
    if (answer === undefined) throw new Error(words.trim() || "the reading process ended without an answer");
    const { head, buffer } = answer;
    if (head.error !== undefined) {
      throw new AdedError("ADED_CORPUS", head.error.message, { hint: head.error.hint });
    }
    return { ...head.answer, buffer };
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof AdedError) throw error;
    throw new AdedError("ADED_CORPUS", `can't read the corpora: ${messageOf(error)}`, { cause: error });
  } finally {
    goOn();
    signal?.removeEventListener("abort", stop);
  }
}

type Head =
  | { error: { message: string; hint?: string }; answer?: undefined }
  | { error?: undefined; answer: FloorAnswer };

/** One line of JSON, then the floor's bytes, as many as the line says; undefined when they did not come whole. */
async function readAnswer(
  stream: AsyncIterable<Buffer>,
): Promise<{ head: Head; buffer: SharedArrayBuffer } | undefined> {
  let line = "";
  let head: Head | undefined;
  let bytes = new Uint8Array(new SharedArrayBuffer(0));
  let at = 0;
  for await (const chunk of stream) {
    let rest = chunk;
    if (head === undefined) {
      const end = chunk.indexOf(0x0a);
      line += chunk.subarray(0, end < 0 ? chunk.length : end).toString();
      if (end < 0) continue;
      head = JSON.parse(line) as Head;
      bytes = new Uint8Array(new SharedArrayBuffer(head.answer?.bytes ?? 0));
      rest = chunk.subarray(end + 1);
    }
    if (at + rest.length > bytes.length) return undefined;
    bytes.set(rest, at);
    at += rest.length;
  }
  if (head === undefined || at !== bytes.length) return undefined;
  return { head, buffer: bytes.buffer };
}

/**
 * Model files from the Hugging Face hub, through node-llama-cpp's downloader: it finds the file of a quantisation, takes all
 * parts of a split one, and goes on where an earlier attempt stopped. HF_ENDPOINT names another hub, HF_TOKEN opens what is gated.
 */

import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { AdedError, messageOf } from "../errors.ts";
import { acquireLock } from "./lock.ts";
import { silentProgress, type WorkOptions } from "./progress.ts";

/**
 * Path of the model's file below `folder`, fetched first if need be.
 * @param uri hf:USER/REPOSITORY:QUANT or hf:USER/REPOSITORY/FILE.gguf
 * @throws AdedError ADED_DOWNLOAD; the signal's reason when aborted (what has come stays)
 */
export async function fetchFromHub(uri: string, folder: string, options: WorkOptions = {}): Promise<string> {
  const { signal, progress = silentProgress } = options;
  signal?.throwIfAborted();
  // loaded on demand: it is large
  const { createModelDownloader, resolveModelFile } = await import("node-llama-cpp");
  await mkdir(folder, { recursive: true });
  const here = await resolveModelFile(uri, { directory: folder, download: false, cli: false }).catch(
    () => undefined,
  );
  if (here !== undefined) return here;
  const tag = createHash("sha256").update(uri).digest("hex").slice(0, 12);
  const release = await acquireLock(path.join(folder, `hub-${tag}.lock`), {
    signal,
    onWait: (pid) => progress.line(`waiting for process ${pid}, which is fetching ${uri}`),
  });
  const task = progress.task(uri, "bytes");
  try {
    const token = process.env.HF_TOKEN?.trim();
    const downloader = await createModelDownloader({
      modelUri: uri,
      dirPath: folder,
      deleteTempFileOnCancel: false,
      tokens: token ? { huggingFace: token } : undefined,
      onProgress: ({ downloadedSize, totalSize }) => task.update(downloadedSize, totalSize),
    });
    const file = await downloader.download({ signal });
    task.end("done");
    return file;
  } catch (error) {
    task.end(signal?.aborted ? "interrupted" : "failed");
    signal?.throwIfAborted();
    throw new AdedError("ADED_DOWNLOAD", `${uri}: ${messageOf(error)}`, {
      cause: error,
      hint: "check the name and the network (HF_ENDPOINT, HF_TOKEN for gated models); the same command goes on where this one stopped",
    });
  } finally {
    await release();
  }
}

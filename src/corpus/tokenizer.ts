/** The model's own tokenizer (node-llama-cpp, vocabulary only: no weights are loaded, no server is needed). */
import type { LlamaModel, Token } from "node-llama-cpp";
import { AdedError, messageOf } from "../errors.ts";

export interface TextTokenizer {
  /**
   * Token ids of a text.
   * @param special true: special tokens written in the text count as such, as in prompts that the engine gets
   * @param continues true: the text goes on after another, so no space is put before it
   */
  tokenize(text: string, special: boolean, continues: boolean): readonly number[];
  detokenize(ids: readonly number[]): string;
  dispose(): Promise<void>;
}

/** @throws AdedError ADED_CORPUS when the model or the native library can't be loaded */
export async function loadTokenizer(modelPath: string): Promise<TextTokenizer> {
  let model: LlamaModel;
  let close: () => Promise<void>;
  try {
    // loaded on demand: only corpus commands pay for it
    const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
    const llama = await getLlama({
      gpu: false,
      build: "never",
      skipDownload: true,
      progressLogs: false,
      logLevel: LlamaLogLevel.disabled,
    });
    model = await llama.loadModel({ modelPath, vocabOnly: true });
    close = () => llama.dispose();
  } catch (error) {
    throw new AdedError("ADED_CORPUS", `can't load the tokenizer of ${modelPath}: ${messageOf(error)}`, {
      hint: "check that the file is a whole GGUF model, and that node-llama-cpp has binaries for this machine (npx aded doctor)",
      cause: error,
    });
  }
  return {
    tokenize: (text, special, continues) =>
      model.tokenize(text, special, continues ? "trimLeadingSpace" : undefined),
    detokenize: (ids) => model.detokenize(ids as Token[], true),
    dispose: close,
  };
}

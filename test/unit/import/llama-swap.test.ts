import { describe, expect, it } from "@jest/globals";
import { parseConfig } from "../../../src/config.ts";
import { importLlamaSwap } from "../../../src/import/llama-swap.ts";

/** Uses each feature of llama-swap's config once. */
const FULL = `
healthCheckTimeout: 5
logLevel: debug
globalTTL: 900
startPort: 9100
metricsMaxInMemory: 10
sendLoadingState: true
macros:
  "server": >
    /opt/llama.cpp/llama-server-b1 --port \${PORT}
  "ctx": 8192
  "common": "--ctx-size \${ctx} -fa on"
  "dir": "\${env.MODELS}"
apiKeys: ["sk-one", "\${env.KEY_TWO}"]
models:
  "writer":
    macros: { "ctx": 4096 }
    cmd: |
      # \${server} is the program
      \${server}
      --model \${dir}/writer.gguf
      \${common} --alias "a b"
    env: ["CUDA_VISIBLE_DEVICES=0", "EMPTY="]
    ttl: 60
    aliases: ["gpt-4o-mini", "w"]
    concurrencyLimit: 2
    filters: { stripParams: "top_k" }
    name: "The writer"
  "embedder":
    cmd: llama-server -hf org/embed-GGUF:Q8_0 --embedding --port \${PORT}
    unlisted: true
    ttl: 0
  "coder":
    cmd: llama-server --hf-repo=org/coder --hf-file coder-q4.gguf --host 0.0.0.0
  "boxed":
    cmd: docker run --rm image -m /models/x.gguf
    cmdStop: docker stop boxed
hooks: { on_startup: { preload: [writer, nobody] } }
routing:
  router:
    use: group
    settings:
      groups:
        "chat": { swap: true, exclusive: false, members: [writer, coder, boxed] }
        "always": { swap: false, exclusive: false, persistent: true, members: [embedder] }
  scheduler: { use: fifo, settings: { fifo: { priority: { writer: 3 } } } }
peers:
  near: { proxy: "http://192.168.1.2:8080/", models: [big, writer] }
  far: { proxy: "https://example.com/api", apiKey: "k", models: [other] }
profiles: { "p": { pins: { "a": "writer" } } }
`;
const env = { MODELS: "/models", KEY_TWO: "sk-two" };

describe("a llama-swap config", () => {
  const { text, left } = importLlamaSwap(FULL, { file: "llama-swap.yaml", env });
  const config = parseConfig(text, { env: {} });

  it("becomes a config that can be used", () => {
    expect(Object.keys(config.models)).toEqual(["writer", "embedder", "coder", "big", "near/writer"]);
    expect(config.models.writer).toMatchObject({
      source: "file:/models/writer.gguf",
      args: ["--ctx-size", "4096", "-fa", "on", "--alias", "a b"],
      env: { CUDA_VISIBLE_DEVICES: "0", EMPTY: "" },
      ttl: 60,
      aliases: ["gpt-4o-mini", "w"],
      max_running: 2,
      preload: true,
    });
    expect(config.models.embedder).toMatchObject({
      source: "hf:org/embed-GGUF:Q8_0",
      args: ["--embedding"],
      hidden: true,
      ttl: 0,
    });
    expect(config.models.coder).toMatchObject({ source: "hf:org/coder/coder-q4.gguf", args: [] });
    expect(config.models.big.engine).toBe("http://192.168.1.2:8080");
    expect(config.api_keys).toEqual(["sk-one", "sk-two"]);
    expect(config.swap).toMatchObject({ ttl: 900, start_seconds: 15 });
    expect(config.groups).toEqual({
      chat: { members: ["writer", "coder"], swap: true, exclusive: false, persistent: false },
      always: { members: ["embedder"], swap: false, exclusive: false, persistent: true },
    });
  });

  it("says of everything else that it was not carried over, and why", () => {
    const options = left.map(({ option }) => option);
    for (const option of [
      "logLevel",
      "metricsMaxInMemory",
      "sendLoadingState",
      "profiles",
      "models.writer.filters",
      "models.writer.name",
      "models.boxed",
      "models.boxed.cmdStop",
      "hooks.on_startup.preload nobody",
      "groups.chat.members boxed",
      "routing.scheduler.settings.fifo.priority",
      "peers.far",
    ]) {
      expect(options).toContain(option);
      expect(text).toContain(`#   ${option}: `);
    }
    expect(options).not.toContain("models.writer.ttl");
  });

  it("starts nothing unasked, as llama-swap does", () => {
    const plain = importLlamaSwap("models: { a: { cmd: llama-server -m /a.gguf } }");
    expect(plain.left).toEqual([]);
    expect(parseConfig(plain.text, { env: {} }).models.a).toMatchObject({
      source: "file:/a.gguf",
      preload: false,
    });
  });

  it("names a macro without a value", () => {
    const { left: open } = importLlamaSwap("models: { a: { cmd: 'llama-server -m ${nope}/a.gguf' } }", {
      env: {},
    });
    expect(open).toEqual([{ option: "models.a.cmd", why: "${nope} has no value" }]);
  });

  it("that is none gets a clear error", () => {
    expect(() => importLlamaSwap("a: [1", { file: "x.yaml" })).toThrow(/^x\.yaml:1:\d+: /);
    expect(() => importLlamaSwap("models: []")).toThrow("has no models");
    expect(() => importLlamaSwap("models: { a: { cmd: vllm serve } }")).toThrow("not llama-server");
  });
});

import { readFileSync } from "node:fs";
import { describe, expect, it } from "@jest/globals";
import {
  argument,
  availableMemory,
  estimateNeed,
  KEPT_TOKENS,
  MemoryGuard,
  type ModelShape,
  offloads,
} from "../../../src/swap/memory.ts";

/** SmolLM2 135M: 30 layers, 3 KV heads of 64. */
const shape: ModelShape = {
  layers: 30,
  kvHeads: 3,
  keyLength: 64,
  valueLength: 64,
  embedding: 576,
  vocabulary: 49152,
  context: 8192,
};

describe("what a model needs", () => {
  it.each([
    ["server/server-draft-context.inl", /draft_graph_tokens = (\d+);/],
    ["batch-cost/batch-cost.cpp", /llama_set_graph_cache\(b\.ctx, (\d+)\);/],
  ])("counts as many tokens of kept graphs as tools/%s", (file, tokens) => {
    const source = readFileSync(new URL(`../../../patches/overlay/tools/${file}`, import.meta.url), "utf8");
    expect(Number(tokens.exec(source)?.[1])).toBe(KEPT_TOKENS);
  });

  it("is its weights, its cache and the buffers", () => {
    const need = estimateNeed(shape, 1e8, ["-c", "2048"]);
    // 2048 positions, 30 layers, 3 heads, 64 keys and 64 values of 2 bytes
    expect(need).toMatchObject({ weights: 1e8, cache: 2048 * 30 * 3 * 128 * 2, context: 2048 });
    expect(need.total).toBeGreaterThan(need.weights + need.cache);
  });

  it("follows the arguments: cache types, and the model's own context without -c", () => {
    expect(estimateNeed(shape, 0, []).context).toBe(8192);
    expect(estimateNeed(shape, 0, ["-c", "0"]).context).toBe(8192);
    const half = estimateNeed(shape, 0, ["-ctk=q8_0", "--cache-type-v", "q8_0"]).cache;
    expect(half / estimateNeed(shape, 0, []).cache).toBeCloseTo(34 / 64);
    expect(estimateNeed({ ...shape, kvHeads: [3, 0, 3] }, 0, ["-c", "10"]).cache).toBe(10 * 6 * 128 * 2);
  });

  it("reads the last of a flag's values, and whether layers go to a GPU", () => {
    expect(argument(["-c", "1", "--ctx-size=2"], ["-c", "--ctx-size"])).toBe("2");
    expect([offloads([]), offloads(["-ngl", "0"]), offloads(["-ngl", "99"])]).toEqual([false, false, true]);
  });
});

describe("what is available", () => {
  const files: Record<string, string> = {
    "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n",
    "/proc/self/cgroup": "0::/box/inner\n",
    "/sys/fs/cgroup/box/memory.max": "4096000\n",
    "/sys/fs/cgroup/box/memory.current": "1000000\n",
    "/sys/fs/cgroup/box/memory.stat": "anon 1\ninactive_file 4000\n",
    "/sys/fs/cgroup/box/inner/memory.max": "max\n",
    "/sys/fs/cgroup/box/inner/memory.current": "1\n",
  };
  const read = (file: string): string | undefined => files[file];

  it("is the least that the machine and the control groups above leave", () => {
    expect(availableMemory({ read })).toBe(4096000 - 1000000 + 4000);
    expect(availableMemory({ read: (file) => (file === "/proc/meminfo" ? files[file] : undefined) })).toBe(
      8192000,
    );
    expect(availableMemory({ read: () => undefined })).toBeUndefined();
  });

  it("is known on this machine", () => {
    if (process.platform === "linux") expect(availableMemory()).toBeGreaterThan(0);
  });
});

describe("the guard", () => {
  const MIB = 2 ** 20;

  it("refuses with the figures", () => {
    const guard = new MemoryGuard({ reserve: 100 * MIB, available: () => 500 * MIB });
    guard.claim("a", 400 * MIB);
    guard.settle("a");
    expect(() => guard.claim("b", 401 * MIB)).toThrow(
      "it needs 401 MiB (as the config says), but 500 MiB are available, and 100 MiB stay free",
    );
  });

  it("counts what models that are loading were promised", () => {
    const guard = new MemoryGuard({ reserve: 0, available: () => 500 * MIB });
    guard.claim("a", 300 * MIB);
    expect(() => guard.claim("b", 300 * MIB)).toThrow("300 MiB of which models that are loading take");
    guard.settle("a");
    guard.claim("b", 300 * MIB);
  });
});

import { describe, expect, it } from "@jest/globals";
import { Random } from "../../../src/drafter/random.ts";
import { LiveAb } from "../../../src/proxy/live-ab.ts";

function body(i: number): Buffer {
  return Buffer.from(JSON.stringify({ messages: [{ role: "user", content: `question ${i}` }] }));
}

describe("LiveAb", () => {
  it("chooses the given share of requests, the same ones each time, others with another seed", () => {
    const chosen = (seed: number): number[] => {
      const ab = new LiveAb({ share: 0.2, by: "request", seed });
      return Array.from({ length: 2000 }, (_, i) => i).filter(
        (i) => ab.choose({ scope: "", body: body(i) }) === "off",
      );
    };
    const first = chosen(1);
    expect(first.length).toBeGreaterThan(330);
    expect(first.length).toBeLessThan(470);
    expect(chosen(1)).toEqual(first);
    expect(chosen(2)).not.toEqual(first);
  });

  it("keeps a key to one arm", () => {
    const ab = new LiveAb({ share: 0.5, by: "key", seed: 1 });
    const arms = Array.from({ length: 40 }, (_, i) => ab.choose({ scope: `key ${i % 20}`, body: body(i) }));
    expect(arms.slice(0, 20)).toEqual(arms.slice(20));
    expect(new Set(arms).size).toBe(2);
  });

  it("does nothing with a share of 0", () => {
    const ab = new LiveAb({ share: 0, by: "request", seed: 1 });
    expect(ab.enabled).toBe(false);
    expect(ab.choose({ scope: "", body: body(1) })).toBe("on");
    expect(ab.report("m")).toBeUndefined();
  });

  it("has an interval that holds the true ratio about as often as it says", () => {
    let covered = 0;
    for (let seed = 1; seed <= 200; seed++) {
      const ab = new LiveAb({ share: 0.3, by: "request", seed: 1 });
      const random = new Random(seed);
      for (let i = 0; i < 200; i++) {
        const arm = random.next() < 0.3 ? "off" : "on";
        const tokens = 5 + random.below(200);
        const noise = 0.8 + 0.4 * random.next();
        ab.count("m", arm, tokens, tokens * (arm === "on" ? 5 : 9) * noise);
      }
      const { ratio, ci } = ab.report("m") ?? {};
      expect(ratio).toBeGreaterThan(1.5);
      if (ci && ci[0] <= 1.8 && ci[1] >= 1.8) covered++;
    }
    expect(covered).toBeGreaterThanOrEqual(182);
    expect(covered).toBeLessThan(200);
  });

  it("claims no interval for a few requests", () => {
    const ab = new LiveAb({ share: 0.5, by: "request", seed: 1 });
    for (let i = 0; i < 19; i++) for (const arm of ["on", "off"] as const) ab.count("m", arm, 10, 50);
    expect(ab.report("m")).toMatchObject({
      ratio: 1,
      ci: null,
      arms: { on: { requests: 19, ms_per_token: 5 } },
    });
    expect(ab.report("other")).toMatchObject({ ratio: null, ci: null });
  });

  it("finds the engine's timings at the end of a stream and of a whole answer", () => {
    const timings = '"timings":{"cache_n":0,"predicted_n":11,"predicted_ms":55.5,"predicted_per_second":198}';
    const texts = [
      `${"data: {}\n\n".repeat(900)}data: {"choices":[],${timings}}\n\ndata: [DONE]\n\n`,
      `{"choices":[{"message":{"content":"\\"timings\\":{}"}}],${timings}}`,
    ];
    for (const text of texts) {
      for (const kept of [120, 4096, text.length]) {
        const ab = new LiveAb({ share: 0.5, by: "request", seed: 1 });
        ab.answered("m", "off", text.slice(-kept));
        expect(ab.report("m")?.arms.off).toEqual({ requests: 1, tokens: 10, ms_per_token: 5.55 });
      }
    }
    const ab = new LiveAb({ share: 0.5, by: "request", seed: 1 });
    ab.answered("m", "on", '{"error":{"message":"no"}}');
    expect(ab.report("m")?.arms.on.requests).toBe(0);
  });
});

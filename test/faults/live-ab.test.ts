/** The live A/B through the proxy's own socket: who gets drafts, what the status then says. */
import { describe, expect, it } from "@jest/globals";
import { testBench } from "./support/bench.ts";

const bench = testBench();

describe("live A/B", () => {
  it("runs its share without drafts, leaves requests that ask for an arm alone, and reports the ratio", async () => {
    const engine = await bench.httpEngine((request, response) => {
      const off = request.headers["x-aded"] === "off";
      request.resume();
      request.on("end", () => {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(`{"choices":[],"timings":{"predicted_n":11,"predicted_ms":${off ? 100 : 50}}}`);
      });
    });
    const { port } = await bench.proxy(engine, { liveAb: { share: 0.5, by: "request", seed: 1 } });
    const url = `http://127.0.0.1:${port}`;
    const ask = async (text: string, headers: Record<string, string> = {}): Promise<string | null> => {
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify({ messages: [{ role: "user", content: text }] }),
      });
      await response.text();
      return response.headers.get("x-aded-arm");
    };
    const arms: (string | null)[] = [];
    for (let i = 0; i < 100; i++) arms.push(await ask(`question ${i}`));
    const off = arms.filter((arm) => arm === "off").length;
    expect(off).toBeGreaterThan(30);
    expect(off).toBeLessThan(70);
    expect(arms.filter((arm) => arm === "on")).toHaveLength(100 - off);
    const again = arms.indexOf("off");
    expect(await ask(`question ${again}`)).toBe("off");
    expect(await ask(`question ${again}`, { "x-aded": "on" })).toBe("on");
    const status = (await (await fetch(`${url}/aded/status`)).json()) as {
      models: Record<
        string,
        { ab: { ratio: number; ci: [number, number]; arms: Record<string, { requests: number }> } }
      >;
    };
    const [{ ab }] = Object.values(status.models);
    expect(ab).toMatchObject({ ratio: 2, arms: { off: { requests: off + 1 }, on: { requests: 100 - off } } });
    expect(ab.ci).toEqual([2, 2]);
    const metrics = await (await fetch(`${url}/aded/metrics`)).text();
    expect(metrics).toMatch(/aded_ab_ratio\{model="[^"]+",bound="estimate"\} 2\n/);
  });
});

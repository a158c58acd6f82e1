import { readFileSync } from "node:fs";
import { describe, expect, it } from "@jest/globals";
import { loadConfig, nearest, parseConfig } from "../../src/config.ts";
import { AdedError } from "../../src/errors.ts";
import { projectPath } from "../../src/home.ts";
import { parseBytes, splitArgs } from "../../src/options.ts";

const env = {};

function faultOf(text: string, extra: NodeJS.ProcessEnv = env): AdedError {
  try {
    parseConfig(text, { file: "my.yaml", env: extra });
  } catch (error) {
    expect(error).toBeInstanceOf(AdedError);
    return error as AdedError;
  }
  throw new Error("it was accepted");
}

describe("the config file", () => {
  it("is the manual: config/aded.yaml states exactly the defaults", () => {
    const manual = parseConfig(readFileSync(projectPath("config", "aded.yaml"), "utf8"), { env });
    expect(manual).toEqual(parseConfig("", { env }));
  });

  it("names every option in config/aded.yaml", () => {
    const manual = readFileSync(projectPath("config", "aded.yaml"), "utf8");
    const schema = JSON.parse(readFileSync(projectPath("config", "aded.schema.json"), "utf8"));
    const missing: string[] = [];
    const walk = (node: { properties?: object; additionalProperties?: unknown }): void => {
      for (const [name, inner] of Object.entries(node.properties ?? {})) {
        if (!new RegExp(`^\\s*(#\\s+)?${name}:`, "m").test(manual)) missing.push(name);
        walk(inner);
      }
      if (typeof node.additionalProperties === "object") walk(node.additionalProperties as object);
    };
    walk(schema);
    expect(missing).toEqual([]);
  });

  it("serves the default model on loopback when nothing is set", () => {
    const config = parseConfig("", { env });
    expect(config.listen).toEqual({ host: "127.0.0.1", port: 8080 });
    const [[name, model]] = Object.entries(config.models);
    expect(name).toBe("SmolLM2-135M-Instruct");
    expect(model.args).toEqual(["-c", "8192", "-np", "4", "-kvu"]);
    expect(model.drafts.enabled).toBe(true);
  });

  it("takes host and port from the environment first", () => {
    const config = parseConfig("listen: {host: 127.0.0.2, port: 1}", {
      env: { ADED_HOST: "::1", ADED_PORT: "9000" },
    });
    expect(config.listen).toEqual({ host: "::1", port: 9000 });
    expect(faultOf("", { ADED_PORT: "80a" }).message).toContain('ADED_PORT is "80a"');
  });

  it("treats an option that is left empty as left out", () => {
    expect(parseConfig("listen:\nmodels:\n", { env })).toEqual(parseConfig("", { env }));
  });

  it("names file, line, column and the nearest known key of an unknown one", () => {
    const fault = faultOf("listen:\n  host: 127.0.0.1\n  prot: 8081\n");
    expect(fault.message).toBe('my.yaml:3:3: unknown option "prot"; did you mean "port"?');
    expect(fault.exitStatus).toBe(2);
    expect(faultOf("models:\n  a:\n    source: x\n    drafts: {max_node: 3}").message).toBe(
      'my.yaml:4:14: unknown option "max_node"; did you mean "max_nodes"?',
    );
    expect(faultOf("xyzzy: 1").message).toContain("known here: listen, api_keys");
  });

  it("reports all faults at once, with their places", () => {
    const lines = faultOf(
      "listen:\n  port: x\n  hots: y\nmodels:\n  a:\n    source: b\n    args: --port 3\n",
    ).message.split("\n");
    expect(lines).toHaveLength(3);
    expect(lines.join("\n")).toContain("my.yaml:2:3: listen.port:");
    expect(lines.join("\n")).toContain('my.yaml:3:3: unknown option "hots"');
    expect(lines.join("\n")).toContain("my.yaml:7:5: models.a.args: --port is set by ADED");
  });

  it("points at broken YAML", () => {
    expect(faultOf("a: [1").message).toMatch(/^my\.yaml:1:\d+: /);
    expect(faultOf("listen: {}\nlisten: {}").message).toBe("my.yaml:2:1: Map keys must be unique");
  });

  it("refuses an address that others reach unless there are keys", () => {
    expect(faultOf("listen: {host: 0.0.0.0}").message).toContain("would let anyone on the network in");
    expect(faultOf("listen: {host: '::'}").message).toContain("would let anyone on the network in");
    expect(faultOf("", { ADED_HOST: "192.168.1.2" }).hint).toContain("api_keys");
    expect(parseConfig("listen: {host: 0.0.0.0}\napi_keys: [secret]", { env }).listen.host).toBe("0.0.0.0");
  });

  it("wants a source or an engine, and names that differ", () => {
    expect(faultOf("models: {a: {args: -c 1}}").message).toContain("either a source");
    expect(faultOf("models: {a: {source: x, engine: 'http://h:1'}}").message).toContain("either a source");
    expect(faultOf("models: {a: {engine: 'ftp://h'}}").message).toContain(
      "models.a.engine: expected http://",
    );
    expect(faultOf("models: {a: {source: x, draft_socket: /s}}").message).toContain(
      "draft_socket belongs to engine",
    );
    expect(faultOf("models: {a: {source: x}, b: {source: y, aliases: [a]}}").message).toContain('called "a"');
  });

  it("says which file it could not read", () => {
    expect(() => loadConfig("/nowhere/x.yaml", env)).toThrow("can't read the config file /nowhere/x.yaml");
    expect(() => loadConfig(undefined, { ADED_CONFIG: "/nowhere/y.yaml" })).toThrow("/nowhere/y.yaml");
  });
});

describe("values", () => {
  it("reads sizes with and without a unit", () => {
    expect([parseBytes("512"), parseBytes("1.5 KiB"), parseBytes("2MB"), parseBytes("1 GiB")]).toEqual([
      512,
      1536,
      2e6,
      2 ** 30,
    ]);
    expect([parseBytes("x"), parseBytes("3 apples"), parseBytes("0"), parseBytes("-1")]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(faultOf("limits: {body_bytes: many}").message).toContain('"many" is no size');
  });

  it("splits arguments at spaces but not inside quotes", () => {
    expect(splitArgs(`-c 10  --chat-template "a b" --x='c d'e ''`)).toEqual([
      "-c",
      "10",
      "--chat-template",
      "a b",
      "--x=c de",
      "",
    ]);
    expect(parseConfig("models: {a: {source: x, args: [-c, 5]}}", { env }).models.a.args).toEqual([
      "-c",
      "5",
    ]);
  });

  it("finds near names only", () => {
    expect(nearest("aliasses", ["source", "aliases", "args"])).toBe("aliases");
    expect(nearest("temperature", ["source", "aliases", "args"])).toBeUndefined();
  });
});

/**
 * The drafter's settings where there is no config file: `--aded-…` flags among llama-server's, or ADED_DRAFT_… in the environment.
 * Names, types, defaults and descriptions are those of the config file's `drafts`.
 */
import { z } from "zod";
import { AdedError } from "../errors.ts";
import { type DraftConfig, draftSchema } from "../options.ts";

interface OwnOption {
  /** Key in the config file. */
  key: string;
  flag: string;
  variable: string;
  description: string;
}

export interface OwnOptions {
  drafts: DraftConfig;
  /** llama-server's arguments: what is left without ours. */
  args: string[];
}

const OWN_FLAG = "--aded-";

/** @throws AdedError ADED_USAGE for an unknown flag, a missing value, or a value out of range */
export function parseOwnOptions(argv: readonly string[], env: NodeJS.ProcessEnv): OwnOptions {
  const options = ownOptions();
  const args: string[] = [];
  const given: Record<string, unknown> = {};
  for (const { key, variable } of options) {
    const value = env[variable]?.trim();
    if (value) given[key] = parse(key, value, variable);
  }
  for (let i = 0; i < argv.length; i++) {
    if (!argv[i].startsWith(OWN_FLAG)) {
      args.push(argv[i]);
      continue;
    }
    const [flag, inline] = split(argv[i]);
    const option = options.find((known) => known.flag === flag);
    if (option === undefined) {
      throw new AdedError("ADED_USAGE", `${flag} is no option of aded-server`, {
        hint: `its own options: ${options.map((known) => known.flag).join(", ")}`,
      });
    }
    const value = inline ?? argv[++i];
    if (value === undefined) {
      throw new AdedError("ADED_USAGE", `${flag} needs a value`, { hint: option.description });
    }
    given[option.key] = parse(option.key, value, flag);
  }
  return { drafts: draftSchema.parse(given), args };
}

/** The part of `--help` that is ours; llama-server's own comes before it. */
export function ownHelp(): string {
  const rows = ownOptions().map(
    ({ flag, variable, description }) =>
      `${`${flag} VALUE`.padEnd(39)} ${description}\n${" ".repeat(40)}(env: ${variable})`,
  );
  return ["", "----- aded-server: drafts inside -----", "", ...rows, "", ...NOTES].join("\n");
}

const NOTES = [
  "Everything else is llama-server's own. With a --draft-socket of yours, or where nothing is generated (--embeddings, --reranking), no",
  "drafter is started. ADED_ENGINE names another build of the patched llama-server, ADED_HOME the folder for all that is stored; the",
  "drafter's log is logs/aded-server.log there. The request header x-aded: off runs one request without drafts.",
];

function ownOptions(): OwnOption[] {
  return Object.entries(draftSchema.shape)
    .filter(([, schema]) => isScalar(schema))
    .map(([key, schema]) => ({
      key,
      flag: `${OWN_FLAG}${key === "enabled" ? "drafts" : key.replaceAll("_", "-")}`,
      variable: key === "enabled" ? "ADED_DRAFTS" : `ADED_DRAFT_${key.toUpperCase()}`,
      description: z.globalRegistry.get(schema)?.description ?? "",
    }));
}

/** Whether one word on a command line can give its value. */
function isScalar(schema: z.core.$ZodType): boolean {
  let inner = schema;
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault || inner instanceof z.ZodOptional) {
    inner = inner.unwrap();
  }
  return !(inner instanceof z.ZodObject || inner instanceof z.ZodArray || inner instanceof z.ZodRecord);
}

/** The value of one option as its type wants it, checked. */
function parse(key: string, text: string, name: string): unknown {
  const word = text.toLowerCase();
  const value =
    word === "on" || word === "true"
      ? true
      : word === "off" || word === "false"
        ? false
        : /^-?\d+(\.\d+)?$/.test(text)
          ? Number(text)
          : text;
  const checked = draftSchema.shape[key as keyof typeof draftSchema.shape].safeParse(value);
  if (checked.success) return value;
  throw new AdedError(
    "ADED_USAGE",
    `${name}: "${text}": ${checked.error.issues[0]?.message ?? "not understood"}`,
    {
      hint: "aded-server --help shows what there is",
    },
  );
}

function split(argument: string): [flag: string, value: string | undefined] {
  const at = argument.indexOf("=");
  return at < 0 ? [argument, undefined] : [argument.slice(0, at), argument.slice(at + 1)];
}

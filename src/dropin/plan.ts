/** Decides what bin/aded-server does with a command line: which engine runs, whether a drafter stands beside it. */
import type { DraftConfig } from "../options.ts";
import { ownHelp, parseOwnOptions } from "./options.ts";

export interface Plan {
  /** llama-server's arguments, without ours. */
  args: string[];
  /** True: ours were among them. */
  changed: boolean;
  drafts: DraftConfig;
  /** Whether a drafter is started. */
  drafting: boolean;
  /** What llama-server prints is followed by this; it does nothing else then. */
  epilogue?: { text: string; stream: "stdout" | "stderr" };
}

const HELP = ["-h", "--help", "--usage"];
/** They print something and end. */
const QUESTIONS = ["--version", "-cl", "--cache-list", "--completion-bash", "--list-devices", ...HELP];
/** Nothing is generated, so nothing can be drafted. The engine would see to that itself, but lay out its weights for drafts. */
const NO_TEXT = ["--embedding", "--embeddings", "--rerank", "--reranking"];
const NO_TEXT_VARIABLES = ["LLAMA_ARG_EMBEDDINGS", "LLAMA_ARG_RERANKING"];

/** @throws AdedError ADED_USAGE when one of our own options is wrong */
export function makePlan(argv: readonly string[], env: NodeJS.ProcessEnv, version: string): Plan {
  const { drafts, args } = parseOwnOptions(argv, env);
  const has = (flags: readonly string[]): boolean =>
    args.some((arg) => flags.includes(arg) || flags.some((flag) => arg.startsWith(`${flag}=`)));
  const asks = has(QUESTIONS);
  const ownSocket = has(["--draft-socket"]) || Boolean(env.LLAMA_ARG_DRAFT_SOCKET);
  const noText = has(NO_TEXT) || NO_TEXT_VARIABLES.some((name) => isTrue(env[name]));
  const plan: Plan = {
    args,
    changed: args.length !== argv.length,
    drafts,
    drafting: drafts.enabled && !asks && !ownSocket && !noText,
  };
  // the first of them decides, as in the engine
  const first = args.find((arg) => HELP.includes(arg) || arg === "--version");
  if (first === "--version") plan.epilogue = { text: `aded-server ${version}`, stream: "stderr" };
  else if (first !== undefined) plan.epilogue = { text: ownHelp(), stream: "stdout" };
  return plan;
}

/** As llama-server reads it. */
function isTrue(value: string | undefined): boolean {
  return ["on", "enabled", "true", "1"].includes(value ?? "");
}

/** Where a drafter and its engine meet, and where the engine keeps what it measures at its start. */
export interface Meeting {
  folder: string;
  measures: string;
}

/** The plan as text for a POSIX shell that has the arguments in "$@". */
export function shellText(plan: Plan, server: string, meeting?: Meeting): string {
  const lines = [`server=${quote(server)}`];
  if (plan.changed) lines.push(`set -- ${plan.args.map(quote).join(" ")}`);
  if (plan.epilogue !== undefined) {
    const { text, stream } = plan.epilogue;
    lines.push('"$server" "$@"', "status=$?");
    lines.push(
      `[ $status -ne 0 ] || printf '%s\\n' ${quote(text)}${stream === "stderr" ? " >&2" : ""}`,
      "exit $status",
    );
  } else if (meeting !== undefined) {
    lines.push(
      `folder=${quote(meeting.folder)}`,
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
      '[ -n "${LLAMA_ARG_DRAFT_MEASURES+set}" ] ||',
      `LLAMA_ARG_DRAFT_MEASURES=${quote(meeting.measures)}`,
      "export LLAMA_ARG_DRAFT_MEASURES",
    );
  }
  return `${lines.join("\n")}\n`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

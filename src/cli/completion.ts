/** `aded completion`: scripts for shells, made from the commands themselves, so that they cannot fall behind. */
import { Argument, Command } from "commander";
import { printLine } from "./report.ts";

/** What can follow a command: `path` is its words, such as /bench/ab. */
interface Place {
  path: string;
  commands: { name: string; description: string }[];
  options: { long: string; description: string; takesValue: boolean }[];
}

const SHELLS = ["bash", "zsh", "fish"] as const;

export function completionCommand(): Command {
  return new Command("completion")
    .description(
      'print a completion script: eval "$(aded completion bash)", or for fish: aded completion fish | source',
    )
    .addArgument(new Argument("<shell>").choices([...SHELLS]))
    .action((shell: (typeof SHELLS)[number], _flags: unknown, command: Command) => {
      printLine(completionScript(shell, command.parent ?? command));
    });
}

export function completionScript(shell: (typeof SHELLS)[number], program: Command): string {
  const places = placesOf(program, "");
  if (shell === "fish") return fish(places);
  return shell === "zsh" ? `autoload -U +X bashcompinit && bashcompinit\n${bash(places)}` : bash(places);
}

function placesOf(command: Command, path: string): Place[] {
  const own: Place = {
    path,
    commands: command.commands.map((inner) => ({ name: inner.name(), description: inner.description() })),
    options: [
      ...command.options,
      { long: "--help", description: "what there is", required: false, optional: false },
    ].flatMap(({ long, description, required, optional }) =>
      long ? [{ long, description, takesValue: Boolean(required || optional) }] : [],
    ),
  };
  return [own, ...command.commands.flatMap((inner) => placesOf(inner, `${path}/${inner.name()}`))];
}

function bash(places: readonly Place[]): string {
  const paths = places.map(({ path }) => path).filter((path) => path !== "");
  const words = places.map(({ path, commands, options }) => {
    const all = [...commands.map(({ name }) => name), ...options.map(({ long }) => long)];
    return `    "${path}") words="${all.join(" ")}" ;;`;
  });
  return [
    "_aded() {",
    '  local current="${COMP_WORDS[COMP_CWORD]}" path="" words="" i',
    "  for ((i = 1; i < COMP_CWORD; i++)); do",
    '    case "$path/${COMP_WORDS[i]}" in',
    `      ${paths.join("|")}) path="$path/\${COMP_WORDS[i]}" ;;`,
    "    esac",
    "  done",
    '  case "$path" in',
    ...words,
    "  esac",
    '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
    "}",
    "complete -o default -F _aded aded",
  ].join("\n");
}

function fish(places: readonly Place[]): string {
  const quoted = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines: string[] = [];
  for (const { path, commands, options } of places) {
    const seen = path
      .split("/")
      .filter((word) => word !== "")
      .map((word) => `__fish_seen_subcommand_from ${word}`);
    const inner = commands.map(({ name }) => name).join(" ");
    const here = [...seen, ...(inner === "" ? [] : [`not __fish_seen_subcommand_from ${inner}`])].join(
      "; and ",
    );
    for (const { name, description } of commands) {
      lines.push(`complete -c aded -f -n ${quoted(here)} -a ${name} -d ${quoted(description)}`);
    }
    for (const { long, description, takesValue } of options) {
      const value = takesValue ? " -r" : "";
      lines.push(`complete -c aded -n ${quoted(here)} -l ${long.slice(2)}${value} -d ${quoted(description)}`);
    }
  }
  return lines.join("\n");
}

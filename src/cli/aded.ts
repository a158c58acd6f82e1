/** The command line. Exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted; serve ends with 0 after SIGTERM. */
import { Command, CommanderError } from "commander";
import { programVersion } from "../main.ts";
import { benchCommand } from "./bench.ts";
import { completionCommand } from "./completion.ts";
import { configCommand } from "./config.ts";
import { corpusCommand } from "./corpus.ts";
import { doctorCommand } from "./doctor.ts";
import { engineCommand } from "./engine.ts";
import { evalCommand } from "./eval.ts";
import { installInterrupt, interruptSignal, termObeyed } from "./interrupt.ts";
import { modelsCommand } from "./models.ts";
import { reportError } from "./report.ts";
import { serveCommand } from "./serve.ts";

/** Runs one command; resolves with the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  const program = new Command("aded")
    .description("adaptive draft-verification for llama.cpp: the same text, sooner")
    .version(programVersion());
  for (const command of [
    serveCommand(),
    engineCommand(),
    modelsCommand(),
    configCommand(),
    benchCommand(),
    evalCommand(),
    corpusCommand(),
    doctorCommand(),
    completionCommand(),
  ]) {
    program.addCommand(command);
  }
  settle(program);
  installInterrupt();
  try {
    await program.parseAsync([...argv], { from: "user" });
    if (termObeyed()) return 0;
    interruptSignal.throwIfAborted();
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return helpWasAsked(error) ? 0 : 2;
    // whatever broke because of Ctrl-C was not a fault
    return reportError(interruptSignal.aborted ? interruptSignal.reason : error);
  }
}

/** Makes every command throw instead of ending the process, and speak of errors as the rest of the program does. */
function settle(command: Command): void {
  command
    .exitOverride()
    .showHelpAfterError("  --help shows what there is")
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "aded: ")) });
  for (const inner of command.commands) settle(inner);
}

function helpWasAsked({ code }: CommanderError): boolean {
  return code === "commander.helpDisplayed" || code === "commander.version";
}

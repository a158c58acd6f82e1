/**
 * Ctrl-C for every command: one AbortSignal that SIGINT and SIGTERM abort, and a deadline after which the process ends
 * whether or not everything has wound down.
 */
import { AdedError } from "../errors.ts";

/** Everything has to be over within two seconds of Ctrl-C. */
const DEADLINE_MS = 1900;

const controller = new AbortController();
let deadlineMs = DEADLINE_MS;
let installed = false;

/** Aborted, with an AdedError ADED_INTERRUPTED as the reason, when the user wants to stop. */
export const interruptSignal: AbortSignal = controller.signal;

let received: NodeJS.Signals | undefined;

/** The signal that ended it; undefined as long as none came. */
export function interruptedBy(): NodeJS.Signals | undefined {
  return received;
}

/** How long a SIGTERM may take, ms, for a command that has something to drain. SIGINT keeps its two seconds. */
export function allowTermMs(ms: number): void {
  deadlineMs = Math.max(DEADLINE_MS, ms);
}

let obeyed = false;

/** For a service that was told to end and has ended in order: after SIGTERM that is no failure. @returns whether it was SIGTERM */
export function obeyTerm(): boolean {
  obeyed = received === "SIGTERM";
  return obeyed;
}

export function termObeyed(): boolean {
  return obeyed;
}

let hangUpEnds = true;

/** From now on SIGHUP is no interruption, as for any service without a terminal: the server reads its config again. */
export function keepOnHangUp(): void {
  hangUpEnds = false;
}

/** Installs the signal handlers. The second signal ends the process at once. */
export function installInterrupt(): void {
  if (installed) return;
  installed = true;
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(130);
    received = name;
    const timer = setTimeout(() => process.exit(130), name === "SIGTERM" ? deadlineMs : DEADLINE_MS);
    timer.unref();
    controller.abort(new AdedError("ADED_INTERRUPTED", `interrupted (${name})`));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  process.on("SIGHUP", (name) => {
    if (hangUpEnds) onSignal(name);
  });
}

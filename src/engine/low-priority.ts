/**
 * Runs a program behind everything else on the machine. `nice` alone does not: on a desktop kernel (sched_autogroup, see sched(7)) it
 * ranks a process only among those of its own session, and each of our children has a session of its own, which then gets as much of a
 * core as the engine does. So the session steps back too, if it is the program's own.
 */
const STEP_BACK = `
read -r pid name state parent group session rest 2>/dev/null < "/proc/$$/stat"
if [ "$session" = "$$" ]; then { echo 19 > "/proc/$$/autogroup"; } 2>/dev/null; fi
command -v nice >/dev/null && exec nice -n 19 "$@"
exec "$@"
`;

/** The command that runs `command` so, for `spawnGroup`. */
export function atLowPriority(...command: string[]): [string, ...string[]] {
  return ["sh", "-c", STEP_BACK, "aded", ...command];
}

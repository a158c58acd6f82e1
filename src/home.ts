/**
 * Where things lie: the folder that holds everything ADED stores (ADED_HOME), and the folder of the program itself.
 * Imports nothing of ours.
 */
import { homedir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The folder for everything that is stored. Read anew at each call, so that tests can change it. @default ~/.aded */
export function adedHome(): string {
  const set = process.env.ADED_HOME?.trim();
  return path.resolve(set ? set : path.join(homedir(), ".aded"));
}

/** A path under ADED_HOME. Nothing is created. */
export function homePath(...parts: string[]): string {
  return path.join(adedHome(), ...parts);
}

/** Root of the program's own files (the folder of package.json), or a path under it. */
export function projectPath(...parts: string[]): string {
  return path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), ...parts);
}

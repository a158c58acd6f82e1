/** Real Python sources of this machine (the standard library and installed packages), as records in the format of The Stack. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

/**
 * @param bytes how much text at least; files are taken again when there is less
 * @param parts into how many files to divide it
 * @returns JSONL of each
 */
export function pythonSources(bytes: number, parts: number): string[] {
  const script = "import sysconfig; print(sysconfig.get_paths()['stdlib'])";
  const root = execFileSync("python3", ["-c", script], { encoding: "utf8" }).trim();
  const files = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".py"))
    .map((entry) => path.join(entry.parentPath, entry.name))
    .sort();
  const lines: string[][] = Array.from({ length: parts }, () => []);
  let taken = 0;
  for (let i = 0; taken < bytes; i++) {
    const file = files[i % files.length];
    const content = readFileSync(file, "utf8");
    taken += Buffer.byteLength(content);
    const record = { content, lang: "Python", ext: "py", max_stars_repo_path: path.relative(root, file) };
    lines[i % parts].push(JSON.stringify(record));
  }
  return lines.map((list) => `${list.join("\n")}\n`);
}

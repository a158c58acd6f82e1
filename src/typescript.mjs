/**
 * Lets this thread run the program's TypeScript, of which everything can be erased: Node does that itself from 22.18 on (but not for
 * packages in node_modules), in a fifth of the time that tsx takes to start; elsewhere tsx does it.
 */
export async function runTypeScript() {
  if (process.features.typescript && !import.meta.url.includes("/node_modules/")) return;
  const { register } = await import("tsx/esm/api");
  register();
}

/** `npm start`: from a fresh clone to a running server. Arguments after -- go to `aded serve`. */
import { run } from "./run.js";

await run(["serve", ...process.argv.slice(2)]);

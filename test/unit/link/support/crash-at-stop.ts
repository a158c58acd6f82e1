/** A drafter's module that brings its thread down as soon as it is told to stop. */
import { parentPort } from "node:worker_threads";

parentPort?.on("message", () => {
  throw new Error("the drafter crashes while it is being stopped");
});

export { AdedDrafter } from "./fake-drafter.ts";

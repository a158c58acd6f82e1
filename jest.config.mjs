// Four projects: unit (no engine), faults (fake engines), e2e (real engine, real model), browser (the same, seen with Chromium).
const transform = {
  "^.+\\.ts$": [
    "@swc/jest",
    { jsc: { target: "es2023", parser: { syntax: "typescript" } }, module: { type: "es6" } },
  ],
};

const project = (name) => ({
  displayName: name,
  rootDir: import.meta.dirname,
  testMatch: [`<rootDir>/test/${name}/**/*.test.ts`],
  testEnvironment: "node",
  extensionsToTreatAsEsm: [".ts"],
  transform,
});

export default {
  // many tests start processes, and a machine that is busy with something else takes its time for that
  testTimeout: 60_000,
  projects: [project("unit"), project("faults"), project("e2e"), project("browser")],
};

import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import {
  Calibration,
  cellOf,
  lengthBucket,
  RANK_ABSENT,
  SOURCE_BIGRAM,
  SOURCE_NEXT,
  SOURCE_SUFFIX,
  SOURCE_TRIGRAM,
  SOURCES,
  seenBucket,
} from "../../../src/drafter/calibration.ts";
import { Mixer, stretch } from "../../../src/drafter/mixer.ts";
import { Random } from "../../../src/drafter/random.ts";

describe("Calibration", () => {
  it("believes the claim while nothing was counted", () => {
    const cell = cellOf(SOURCE_TRIGRAM, 0, 0, 0.7, 0);
    expect(new Calibration().rate(cell, 0.7)).toBeCloseTo(0.7, 6);
  });

  it("comes to believe the counts", () => {
    const calibration = new Calibration();
    const cell = cellOf(SOURCE_SUFFIX, 2, 0, 0.9, 0);
    const random = new Random(5);
    for (let i = 0; i < 5000; i++) calibration.count(cell, random.next() < 0.3 ? 1 : 0);
    expect(calibration.rate(cell, 0.9)).toBeGreaterThan(0.22);
    expect(calibration.rate(cell, 0.9)).toBeLessThan(0.38);
  });

  it("follows traffic that changes", () => {
    const calibration = new Calibration({ memory: 64 });
    const cell = cellOf(SOURCE_BIGRAM, 1, 1, 0.5, 1);
    for (let i = 0; i < 1000; i++) calibration.count(cell, 1);
    for (let i = 0; i < 300; i++) calibration.count(cell, 0);
    expect(calibration.rate(cell, 0.5)).toBeLessThan(0.2);
    expect(calibration.trialsOf(cell)).toBeLessThanOrEqual(64);
  });

  it("keeps different sources, lengths, ranks, claims and depths apart, and all cells in range", () => {
    const cells = new Set([
      cellOf(SOURCE_TRIGRAM, 0, 0, 0.5, 0),
      cellOf(SOURCE_BIGRAM, 0, 0, 0.5, 0),
      cellOf(SOURCE_TRIGRAM, 1, 0, 0.5, 0),
      cellOf(SOURCE_TRIGRAM, 0, 1, 0.5, 0),
      cellOf(SOURCE_TRIGRAM, 0, RANK_ABSENT, 0.5, 0),
      cellOf(SOURCE_TRIGRAM, 0, 99, 0.5, 0),
      cellOf(SOURCE_TRIGRAM, 0, 0, 0.9, 0),
      cellOf(SOURCE_TRIGRAM, 0, 0, 0.5, 1),
      cellOf(SOURCE_NEXT, 0, 0, 0.5, 0),
    ]);
    expect(cells.size).toBe(9);
    const calibration = new Calibration();
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: SOURCES - 1 }),
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: -1, max: 70 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.nat(70),
        (source, length, rank, claim, depth) => {
          for (const bucket of [lengthBucket(length + 1), seenBucket(length)]) {
            expect(calibration.trialsOf(cellOf(source, bucket, rank, claim, depth))).toBe(0);
          }
        },
      ),
    );
  });
});

const squash = (sum: number) => 1 / (1 + Math.exp(-sum));
const mix = (mixer: Mixer, set: number, inputs: Float32Array) => squash(mixer.dot(set, inputs, 0));

describe("Mixer", () => {
  it("learns which of two sources to trust", () => {
    const mixer = new Mixer(2, 1, [0.5, 0.5]);
    const random = new Random(9);
    const inputs = new Float32Array(2);
    let good = 0;
    let loss = 0;
    for (let i = 0; i < 20_000; i++) {
      const p = 0.05 + 0.9 * random.next();
      const outcome = random.next() < p ? 1 : 0;
      inputs[0] = stretch(p);
      inputs[1] = stretch(random.next());
      const mixed = mix(mixer, 0, inputs);
      if (i >= 15_000) {
        good += Math.abs(mixed - p);
        loss++;
      }
      mixer.learn(0, inputs, 0, mixed, outcome);
    }
    expect(good / loss).toBeLessThan(0.06);
  });

  it("keeps the sets' weights apart", () => {
    const mixer = new Mixer(1, 2, [1]);
    const inputs = Float32Array.of(stretch(0.8));
    for (let i = 0; i < 500; i++) mixer.learn(0, inputs, 0, mix(mixer, 0, inputs), 0);
    expect(mix(mixer, 0, inputs)).toBeLessThan(0.2);
    expect(mix(mixer, 1, inputs)).toBeCloseTo(0.8, 3);
  });

  it("stays finite at the ends", () => {
    for (const p of [0, 1]) expect(Number.isFinite(stretch(p))).toBe(true);
  });
});

/** `aded corpus info`: what a corpus holds, and how much of it the pruned rows would keep. */
import type { WorkOptions } from "../engine/progress.ts";
import { type CorpusFile, readCorpusFile } from "./corpus-file.ts";
import { openDatabase } from "./database.ts";
import { readGrams } from "./gram-stream.ts";
import { forEachPair, type PairRow } from "./pair-rows.ts";

/** Numbers of successors for which the coverage is told. */
export const COVERAGE_KS = [4, 8, 12, 16, 64] as const;

export interface BigRow {
  a: number;
  b: number;
  /** Occurrences of the pair. */
  total: number;
  /** Different successors. */
  distinct: number;
  /** The likeliest successors with their share of the pair's occurrences. */
  top: { id: number; share: number }[];
}

export interface CorpusInfo extends CorpusFile {
  pairs: number;
  /** Share of all occurrences whose successor is among the k likeliest of its pair, by k. */
  coverage: Record<string, number>;
  biggest: BigRow[];
}

const TOP_SHOWN = 5;
const MEMORY = 256 * 2 ** 20;

/**
 * Reads the whole file.
 * @param most how many of the biggest rows to tell
 * @throws AdedError ADED_CORPUS when it is missing or damaged
 */
export async function corpusInfo(file: string, most: number, options: WorkOptions = {}): Promise<CorpusInfo> {
  const { signal, progress } = options;
  const database = await openDatabase({ memory: MEMORY, signal });
  const task = progress?.task(`read ${file}`, "steps");
  try {
    const corpus = await readCorpusFile(database, file);
    const covered = new Float64Array(COVERAGE_KS.length);
    const biggest: BigRow[] = [];
    let pairs = 0;
    let rows = 0;
    await forEachPair(readGrams(database, corpus), COVERAGE_KS[COVERAGE_KS.length - 1], (row) => {
      if (pairs++ % 65536 === 0) task?.update(rows, corpus.rows);
      rows += row.distinct;
      addCoverage(row, covered);
      keepBiggest(row, biggest, most);
    });
    const coverage = COVERAGE_KS.map((k, i) => [String(k), corpus.total > 0 ? covered[i] / corpus.total : 0]);
    task?.end("done");
    return { ...corpus, pairs, coverage: Object.fromEntries(coverage) as Record<string, number>, biggest };
  } catch (error) {
    task?.end(signal?.aborted ? "interrupted" : "failed");
    throw error;
  } finally {
    await database.close();
  }
}

function addCoverage({ size, counts }: PairRow, covered: Float64Array): void {
  let sum = 0;
  let k = 0;
  for (let i = 0; i < COVERAGE_KS.length; i++) {
    for (; k < size && k < COVERAGE_KS[i]; k++) sum += counts[k];
    covered[i] += sum;
  }
}

function keepBiggest(row: PairRow, biggest: BigRow[], most: number): void {
  if (biggest.length === most && (most === 0 || row.total <= biggest[most - 1].total)) return;
  const top = Array.from(row.ids.subarray(0, Math.min(row.size, TOP_SHOWN)), (id, i) => ({
    id,
    share: row.counts[i] / row.total,
  }));
  const { a, b, total, distinct } = row;
  let at = biggest.length;
  while (at > 0 && biggest[at - 1].total < total) at--;
  biggest.splice(at, 0, { a, b, total, distinct, top });
  if (biggest.length > most) biggest.pop();
}

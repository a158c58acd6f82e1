/** `aded corpus diff`: two corpora row by row. */
import path from "node:path";
import { readCorpusFile, requireOneVocabulary } from "./corpus-file.ts";
import { literal, openDatabase } from "./database.ts";
import { DEFAULT_MEMORY, type MakeOptions } from "./make-corpus.ts";

export interface CorpusDiff {
  /** Rows that only one of the files has, rows in both with different counts, and rows that are the same. */
  only_first: number;
  only_second: number;
  different: number;
  same: number;
  /** Sum of |n1 − n2| over all rows, as a share of the larger total: 0 for equal files, at most 2. */
  distance: number;
  /** The rows that differ most. */
  largest: { a: number; b: number; c: number; first: number; second: number }[];
}

/** @param most rows to show @throws AdedError ADED_CORPUS, also when the vocabularies differ */
export async function diffCorpora(
  first: string,
  second: string,
  most: number,
  options: MakeOptions = {},
): Promise<CorpusDiff> {
  const { memory = DEFAULT_MEMORY, threads = 2, signal } = options;
  const spill = `${path.resolve(first)}.diff-${process.pid}`;
  const database = await openDatabase({ memory, threads, spill, signal });
  try {
    const corpora = [await readCorpusFile(database, first), await readCorpusFile(database, second)];
    requireOneVocabulary(corpora);
    const what = `can't compare ${first} with ${second}`;
    await database.run(
      `CREATE VIEW both_files AS SELECT a, b, c, COALESCE(x.n, 0) AS first, COALESCE(y.n, 0) AS second
       FROM read_parquet(${literal(first)}) x FULL JOIN read_parquet(${literal(second)}) y USING (a, b, c)`,
      what,
    );
    const [{ sum, ...counts }] = await database.rows<Counts>(
      `SELECT count(*) FILTER (second = 0) AS only_first, count(*) FILTER (first = 0) AS only_second,
         count(*) FILTER (first <> second AND first > 0 AND second > 0) AS different,
         count(*) FILTER (first = second) AS same,
         CAST(COALESCE(SUM(abs(first - second)), 0) AS DOUBLE) AS sum
       FROM both_files`,
      what,
    );
    const largest = await database.rows<CorpusDiff["largest"][number]>(
      `SELECT a, b, c, first, second FROM both_files WHERE first <> second
       ORDER BY abs(first - second) DESC, a, b, c LIMIT ${most}`,
      what,
    );
    return { ...counts, distance: sum / Math.max(1, ...corpora.map(({ total }) => total)), largest };
  } finally {
    await database.close();
  }
}

type Counts = Omit<CorpusDiff, "distance" | "largest"> & { sum: number };

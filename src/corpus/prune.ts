/** `aded corpus prune`: keeps the likeliest successors of each pair, as reading would, once and for all. */
import { stat } from "node:fs/promises";
import path from "node:path";
import { commitFile, metadataSql, metaOf, readCorpusFile } from "./corpus-file.ts";
import { literal, openDatabase } from "./database.ts";
import { gramHash } from "./gram-counter.ts";
import { DEFAULT_MEMORY, type MadeCorpus, type MakeOptions, makeCorpus } from "./make-corpus.ts";

/** @param topK successors to keep per pair @throws AdedError ADED_CORPUS */
export function pruneCorpus(
  file: string,
  topK: number,
  out: string,
  options: MakeOptions = {},
): Promise<MadeCorpus> {
  return makeCorpus(out, options, async (target, work) => {
    const { memory = DEFAULT_MEMORY, threads = 2, signal } = options;
    const database = await openDatabase({ memory, threads, spill: path.join(work, "spill"), signal });
    try {
      const corpus = await readCorpusFile(database, file);
      // the order of equally frequent successors is that of pair-rows.ts
      await database.run(
        `CREATE TABLE kept AS SELECT a, b, c, n FROM read_parquet(${literal(file)})
         QUALIFY row_number() OVER (PARTITION BY a, b ORDER BY n DESC, c) <= ${topK}`,
        `can't prune ${file}`,
      );
      let rows = 0;
      let total = 0;
      let checksum = 0;
      for await (const chunk of database.chunks("SELECT a, b, c, CAST(n AS DOUBLE) FROM kept", file)) {
        const [a, b, c, n] = [0, 1, 2, 3].map((column) => chunk.getColumnVector(column));
        rows += chunk.rowCount;
        for (let i = 0; i < chunk.rowCount; i++) {
          const count = n.getItem(i) as number;
          const hash = gramHash(a.getItem(i) as number, b.getItem(i) as number, c.getItem(i) as number);
          total += count;
          checksum = (checksum + Math.imul(hash, count)) >>> 0;
        }
      }
      const least = corpus.topK > 0 ? Math.min(topK, corpus.topK) : topK;
      const meta = { ...metaOf(corpus), total, checksum, topK: least };
      const draft = path.join(work, "pruned.parquet");
      await database.run(
        `COPY (SELECT * FROM kept ORDER BY a, b, c) TO ${literal(draft)}
         (FORMAT parquet, COMPRESSION zstd, KV_METADATA ${metadataSql(meta)})`,
        `can't write ${out}`,
      );
      await commitFile(draft, target);
      return { out, rows, bytes: (await stat(target)).size };
    } finally {
      await database.close();
    }
  });
}

-- What a corpus is: how often each 3-gram (a, b, c) occurs, over all parts, in the order of its tokens.
-- This very text runs on DuckDB (src/corpus/count.ts) and on Apache Spark (src/corpus/spark/count.py); grams(a, b, c, n) are
-- the partial counts that `aded corpus build` made.
SELECT a, b, c, CAST(SUM(n) AS BIGINT) AS n
FROM grams
GROUP BY a, b, c
ORDER BY a, b, c

"""Counts a corpus on Apache Spark, for texts past one machine (docs/corpora.md).

    spark-submit count.py --parts DIR... --out DIR
    spark-submit count.py --map "npx aded corpus build --format stack --model M.gguf" --inputs FILE... --work DIR --out DIR

The first form adds up parts that `aded corpus build --parts` made. The second makes them, too: each input becomes a task
that runs the given command on an executor (Node and the model file have to be there) and leaves its parts in the work
folder, which all executors share. What is counted is said by count.sql, the text that runs on DuckDB as well.
`aded corpus merge --out F.parquet DIR` then makes one corpus file of the result.

Paths are local or anything that Spark reads (hdfs:, s3a:); the work folder of --map has to be a mounted one.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys

from pyspark.sql import SparkSession

DESCRIPTION = "_corpus.json"
# metadata that have to be the same in all parts
SHARED = ("vocabHash", "nVocab", "tokenizer", "scale")


def main():
    args = arguments()
    spark = SparkSession.builder.appName("aded-corpus").getOrCreate()
    try:
        folders = map_inputs(spark, args) if args.map else args.parts
        meta = merged(folders, [read_description(spark, folder) for folder in folders])
        spark.read.parquet(*folders).createOrReplaceTempView("grams")
        counted = spark.sql(count_sql(args.sql))
        counted.write.option("compression", "zstd").mode("error").parquet(args.out)
        write_description(spark, args.out, meta)
    finally:
        spark.stop()


def arguments():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", help="folders of parts to add up")
    parser.add_argument("--map", help="command that makes parts of an input")
    parser.add_argument("--inputs", nargs="+", help="with --map: the inputs, one task each")
    parser.add_argument("--work", help="with --map: a folder that all executors share")
    parser.add_argument("--out", required=True, help="folder for the counts; must not exist")
    parser.add_argument("--sql", default=os.path.join(here, "..", "count.sql"), help="default: count.sql beside this folder")
    args = parser.parse_args()
    if bool(args.parts) == bool(args.map):
        parser.error("name either --parts or --map")
    if args.map and not (args.inputs and args.work):
        parser.error("--map needs --inputs and --work")
    return args


def count_sql(file):
    with open(file, encoding="utf8") as lines:
        return "".join(line for line in lines if not line.startswith("--"))


def map_inputs(spark, args):
    """Runs the command once per input, each on whichever executor is free. Returns the folders of the parts."""
    command = shlex.split(args.map)
    tasks = [(name, os.path.join(args.work, f"input-{i:05d}")) for i, name in enumerate(args.inputs)]

    def run(task):
        name, folder = task
        # a task that was tried before may have left a half
        shutil.rmtree(folder, ignore_errors=True)
        done = subprocess.run([*command, "--parts", folder, "--", name], stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name}: {done.stderr[-2000:]}")

    spark.sparkContext.parallelize(tasks, len(tasks)).foreach(run)
    return [folder for _, folder in tasks]


def merged(folders, metas):
    """The description of everything together. Counts and checksums of parts add up."""
    first = metas[0]
    for folder, meta in zip(folders, metas):
        for key in SHARED:
            if meta[key] != first[key]:
                sys.exit(f"{folder} has the {key} {meta[key]}, {folders[0]} has {first[key]}: they can't be added up")
    different = lambda key: "+".join(dict.fromkeys(meta[key] for meta in metas))
    return {
        **{key: first[key] for key in SHARED},
        "model": different("model"),
        "format": different("format"),
        "template": all(meta["template"] for meta in metas),
        "total": sum(meta["total"] for meta in metas),
        "checksum": sum(meta["checksum"] for meta in metas) % 2**32,
        "topK": max(meta["topK"] for meta in metas),
        "sources": [source for meta in metas for source in meta["sources"]],
    }


def file_system(spark, folder):
    """Hadoop's file system of a folder, and the path of its description there."""
    jvm = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(folder, DESCRIPTION)
    return path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()), path


def read_description(spark, folder):
    system, path = file_system(spark, folder)
    if not system.exists(path):
        sys.exit(f"{folder} holds no finished parts of a corpus ({DESCRIPTION} is missing)")
    stream = system.open(path)
    try:
        text = spark.sparkContext._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")
    finally:
        stream.close()
    return json.loads(text)


def write_description(spark, folder, meta):
    system, path = file_system(spark, folder)
    stream = system.create(path)
    stream.write(bytearray(json.dumps(meta, indent=2).encode()))
    stream.close()


main()

"""Measures whole jobs on a local Ray, from text to Parquet, and compares them to the usual way.

    python -m jobs.benchmarks.whole_job                  # base size: our job, its replica's time, and the usual way
    python -m jobs.benchmarks.whole_job --growth         # a small model: seconds per million tokens at 1x, 4x and 16x

The usual way is `read_parquet().map_batches(transformers' pipeline).write_parquet()` (jobs.benchmarks.usual_way), its
batch size the best of those that `preln bench` found. Both are whole processes, from the command to its end.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from jobs.benchmarks.classes import processor
from jobs.benchmarks.texts import corpus, random_checkpoint

GROWTH = (1, 4, 16)
FILES = 4


def main(
    texts: Annotated[int, typer.Option(help="Texts, log-normal around 60 tokens, sigma 0.9.")] = 1_500,
    rounds: Annotated[int, typer.Option(help="Runs of each; medians are sample.")] = 3,
    layers: Annotated[int, typer.Option(help="Layers of the random checkpoint.")] = 12,
    width: Annotated[int, typer.Option(help="Its width.")] = 768,
    dtype: Annotated[str, typer.Option(help="Our type; the usual way runs in the checkpoint's.")] = "auto",
    batch: Annotated[int, typer.Option(help="The usual way's batch size; 0 leaves it out.")] = 1,
    growth: Annotated[bool, typer.Option("--growth", help="Measure 1x, 4x and 16x the texts instead.")] = False,
) -> None:
    """Measure, and print Markdown for docs/benchmarks.md."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"`python -m jobs.benchmarks.whole_job {' '.join(sys.argv[1:])}`\n\n{processor()}, {cores} cores.\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_checkpoint(folder / "checkpoint", layers=layers, width=width)
        if growth:
            print("| texts | tokens | wall | after the first receipt | s per million tokens, after it |")
            print("| --- | --- | --- | --- | --- |")
            for factor in GROWTH:
                tokens = lay_out(folder / f"in-{factor}", texts=texts * factor)
                runs = [ours(folder, folder / f"in-{factor}", dtype=dtype) for _ in range(rounds)]
                wall, steady = median(runs, "wall"), median(runs, "steady")
                rate = 1e6 * median(runs, "steady_share")
                print(f"| {texts * factor:,} | {tokens:,} | {wall:.1f} s | {steady:.1f} s | {rate:.1f} |", flush=True)
            return
        tokens = lay_out(folder / "in", texts=texts)
        mine, theirs = [], []
        for _ in range(rounds):  # in turns, so that a slow minute counts on both sides
            mine.append(ours(folder, folder / "in", dtype=dtype))
            if batch:
                theirs.append(usual(folder, folder / "in", batch=batch))
        shares = [run["computing"] for run in mine]
        print(f"{texts:,} texts, {tokens:,} tokens, {layers} layers of width {width}; medians of {rounds}.\n")
        print("| job | wall, whole process | tokens/s | the replica computed |\n| --- | --- | --- | --- |")
        wall = median(mine, "wall")
        print(
            f"| preln ({dtype}) | {wall:.1f} s | {tokens / wall:,.0f} | {statistics.median(shares):.3f} of its time |"
        )
        if theirs:
            other = statistics.median(theirs)
            print(f"| the usual way, batch {batch} | {other:.1f} s | {tokens / other:,.0f} | |")
            print(f"\nThe usual way takes {other / wall:.2f} times as long.")


def median(runs: list[dict[str, float]], name: str) -> float:
    """The median of one figure."""
    return statistics.median(run[name] for run in runs)


def lay_out(folder: Path, *, texts: int) -> int:
    """Parquet files with a text column; their tokens."""
    sample = corpus(lengths="sigma0.9", count=texts)
    folder.mkdir()
    each = -(-texts // FILES)
    for number in range(FILES):
        part = sample.texts[number * each : (number + 1) * each]
        pq.write_table(pa.table({"text": part}), folder / f"{number}.parquet")
    return sample.tokens


def ours(folder: Path, source: Path, *, dtype: str) -> dict[str, float]:
    """One run of ours into a fresh output: seconds, and the replica's share of computing."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        arguments = ["--task", "text-classification", "--model", str(folder / "checkpoint"), "--dtype", dtype]
        places = ["--input", str(source), "--output", f"{output}/out", "--set", "shards.rows=256"]
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "jobs", "annotate", "--json", *arguments, *places],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        wall = time.monotonic() - began
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    steady = record["seconds"] - record["first_shard_seconds"]
    return {
        "wall": wall,
        "steady": steady,
        "steady_share": steady / record["tokens"],
        "computing": statistics.mean(record["replica_shares"]["computing"]),
    }


def usual(folder: Path, source: Path, *, batch: int) -> float:
    """Seconds of one run of the usual way: one replica with every core but one, as ours has by default."""
    cores = os.cpu_count() or 1
    script = Path(__file__).with_name("usual_way.py")
    with tempfile.TemporaryDirectory(dir=folder) as output:
        words = [source, folder / "checkpoint", f"{output}/out", 1, batch, cores]
        began = time.monotonic()
        subprocess.run([sys.executable, str(script), *map(str, words)], check=True, stderr=subprocess.DEVNULL)
        return time.monotonic() - began


if __name__ == "__main__":
    typer.run(main)

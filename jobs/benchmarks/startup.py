"""Measures what a run costs besides the model: start-up, and driver time per bundle.

`python -m jobs.benchmarks.startup` annotates generated short texts with the embedded checkpoint on a local Ray, each run in
a process of its own: once with little to do (start-up), once cut into many small bundles (what a bundle costs the driver).
"""

import json
import platform
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

from jobs.embedded import CHECKPOINT

ROWS_A_SHARD = 64
SHARDS = 600


def main(rounds: Annotated[int, typer.Option(help="Runs of each kind; medians are printed.")] = 3) -> None:
    """Measure, and print a table for docs/benchmarks.md."""
    small = [measured(rows=200, rows_a_shard=200) for _ in range(rounds)]
    many = [measured(rows=ROWS_A_SHARD * SHARDS, rows_a_shard=ROWS_A_SHARD) for _ in range(rounds)]
    print(f"{platform.processor() or platform.machine()}, medians of {rounds}\n")
    print("| measure | value |\n| --- | --- |")
    print(f"| command to first receipt, a small job | {median(small, 'to_first_receipt'):.1f} s |")
    print(f"| command to its end | {median(small, 'wall'):.1f} s |")
    print(
        f"| driver CPU a bundle, {SHARDS} shards of {ROWS_A_SHARD} rows | {1e3 * median(many, 'cpu_a_bundle'):.1f} ms |"
    )
    print(f"| bundles | {median(many, 'bundles'):.0f} |")


def median(runs: list[dict[str, float]], name: str) -> float:
    """The median of one figure."""
    return statistics.median(run[name] for run in runs)


def measured(*, rows: int, rows_a_shard: int) -> dict[str, float]:
    """One run in a process of its own; seconds from its start by the wall clock."""
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.parquet"
        write_texts(texts, rows=rows)
        arguments = ["--task", "text-classification", "--model", str(CHECKPOINT), "--dtype", "float32"]
        places = ["--input", str(texts), "--output", f"{folder}/out", "--set", f"shards.rows={rows_a_shard}"]
        # Shards of this few bytes would share a bundle; a cut as small as they are keeps each in one of its own.
        cut = ["--set", f"shards.bytes={max(texts.stat().st_size * rows_a_shard // rows, 1)}"]
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "jobs", "annotate", "--json", *arguments, *places, *cut],
            capture_output=True,
            text=True,
            check=True,
        )
        wall = time.monotonic() - began
        record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    before = wall - record["seconds"]
    return {
        "wall": wall,
        "to_first_receipt": before + record["first_shard_seconds"],
        "bundles": record["bundles"],
        "cpu_a_bundle": record["driver_cpu_seconds"] / record["bundles"],
    }


def write_texts(path: Path, *, rows: int) -> None:
    """Short texts, all different, as one Parquet file."""
    pq.write_table(pa.table({"text": [f"The order with the number {index} is late." for index in range(rows)]}), path)


if __name__ == "__main__":
    typer.run(main)

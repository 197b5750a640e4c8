"""Measures how long commands take that start no run, and a first answer in Python, each in a process of its own.

`python -m jobs.benchmarks.commands --root CHECKOUT` measures another checkout of this repository with the same packages;
`--s3 s3://bucket/prefix` also plans an input there, which must exist.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from jobs.embedded import CHECKPOINT, DEMO, SAMPLE

FIRST_ANSWER = """\
import preln
preln.annotate(["book a table for two"], model={model!r}, task="text-classification")
"""
FIXED = ("--set", "resources.gpus=0", "--dtype", "float32")
"""What spares a plan its question to Ray."""


def main(
    root: Annotated[Path, typer.Option(help="The checkout whose commands are measured.")] = CHECKPOINT.parents[2],
    s3: Annotated[str | None, typer.Option(help="An input on S3 for another plan.")] = None,
    rounds: Annotated[int, typer.Option(help="Runs of each; medians are printed.")] = 3,
) -> None:
    """Measure, and print a table for docs/benchmarks.md."""
    jobs = [sys.executable, "-m", "jobs"]
    with tempfile.TemporaryDirectory() as folder:
        output = f"{folder}/out"
        here = ("--task", "text-classification", "--model", str(CHECKPOINT), "--output", output)
        local = ("--input", str(SAMPLE / "texts.parquet"))
        commands: dict[str, Sequence[str]] = {
            "--help": [*jobs, "--help"],
            "annotate --help": [*jobs, "annotate", "--help"],
            "plan, local": [*jobs, "plan", *here, *local],
            "plan, local, gpus and dtype set": [*jobs, "plan", *here, *local, *FIXED],
        }
        if s3 is not None:
            commands["plan, S3, gpus and dtype set"] = [*jobs, "plan", *here, "--input", s3, *FIXED]
        run([*jobs, "annotate", *here, *local, *FIXED], root=root)
        commands["status"] = [*jobs, "status", output]
        if (root / "preln").is_dir():
            answer = FIRST_ANSWER.format(model=str(DEMO / "intents"))
            commands["a first answer in Python"] = [sys.executable, "-c", answer]
        print(f"medians of {rounds}\n\n| command | CPU s | wall s |\n| --- | --- | --- |")
        for name, words in commands.items():
            runs = [run(words, root=root) for _ in range(rounds)]
            cpu, wall = (statistics.median(part) for part in zip(*runs, strict=True))
            print(f"| `{name}` | {cpu:.2f} | {wall:.2f} |", flush=True)


def run(words: Sequence[str], *, root: Path, variables: Mapping[str, str] = os.environ) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of one command and the processes that it waited for."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, cwd=root, env={**variables, "PYTHONPATH": str(root)}, capture_output=True, text=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip()[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    typer.run(main)

"""Compares the forecasts of `preln annotate --probe` with what ten different jobs then took, on a local Ray.

    python -m jobs.benchmarks.probe                     # ten jobs, each five minutes where a core does 6,000 tokens a second
    python -m jobs.benchmarks.probe --tokens 40000      # the same jobs, smaller

Prints one line of JSON a job: the forecast of hours, the truth (the probe's replicas idle, so the rest of the work alone, its
start-up included), whether it lies in the range, and how far the likely value is off. Every job is shown.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.output.folder import OutputFolder

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "jobs" / "checkpoints" / "demo"
SENTENCE = "The ferry left Bristol at noon and nobody knew why it stopped at every village on the way. "
TOKENS = 20
"""Of a sentence, about."""


@dataclass(frozen=True)
class Case:
    """One job. mean, sigma: of the log-normal number of sentences in a text. trend: how many times longer the last text is than
    the first. layout: of the input."""

    name: str
    tasks: dict[str, Any]
    mean: float = 1.0
    sigma: float = 0.5
    trend: float = 1.0
    layout: str = "parquet"

    def sentences(self, count: int) -> NDArray[np.int64]:
        """How many sentences each of so many texts has."""
        drawn = np.random.default_rng(0).lognormal(np.log(self.mean), self.sigma, count)
        return np.maximum(1, drawn * self.trend ** np.linspace(0, 1, count)).astype(np.int64)


INTENTS = {"intents": "text-classification"}
BOTH = {**INTENTS, "entities": "token-classification"}
CASES = (
    Case("short texts", INTENTS, sigma=0.1),
    Case("texts of mixed length", INTENTS, sigma=0.9),
    Case("long texts", INTENTS, mean=5, sigma=0.2),
    Case("texts that get longer", INTENTS, trend=4),
    Case("texts that get shorter", INTENTS, mean=4, trend=0.25),
    Case("two tasks", BOTH),
    Case("JSON Lines", INTENTS, layout="jsonl"),
    Case("compressed JSON Lines", INTENTS, layout="jsonl.gz"),
    Case("many small files", INTENTS, layout="files"),
    Case("entities of mixed length", {"entities": "token-classification"}, sigma=0.9),
)


def write_input(case: Case, folder: Path, *, tokens: int) -> None:
    """A case's input files, of about so many tokens, drawn with a fixed seed."""
    count = max(1, int(tokens / TOKENS / case.sentences(10_000).mean()))
    sentences = case.sentences(count)
    rows = [f"{index}: {SENTENCE * number}" for index, number in enumerate(sentences)]
    folder.mkdir()
    if case.layout == "parquet":
        pq.write_table(pa.table({"text": rows}), folder / "a.parquet")
    elif case.layout == "files":
        for first in range(0, count, 200):
            pq.write_table(pa.table({"text": rows[first : first + 200]}), folder / f"{first:09d}.parquet")
    else:
        content = "\n".join(json.dumps({"text": row}) for row in rows).encode()
        (folder / f"a.{case.layout}").write_bytes(gzip.compress(content) if case.layout.endswith("gz") else content)


def measured(case: Case, folder: Path, *, tokens: int, shards: int) -> dict[str, Any]:
    """Probe a case, finish it, and compare."""
    write_input(case, folder / "in", tokens=tokens)
    job = {
        "input": str(folder / "in"),
        "model": {"checkpoint": str(DEMO), "dtype": "float32"},
        "tasks": case.tasks,
        "output": str(folder / "out"),
        "resources": {"gpus": 0, "replicas": 1, "cpus": 1},
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    command = [sys.executable, "-m", "jobs", "annotate", str(folder / "job.yaml")]
    forecast = record_after([*command, "--probe", str(shards)], folder).get("forecast")
    truth = record_after(command, folder)["seconds"]
    if forecast is None:
        return {"case": case.name, "forecast": None, "truth_s": truth}
    low, likely, high = (3600 * forecast["hours"][key] for key in ("low", "likely", "high"))
    return {
        "case": case.name,
        "low_s": round(low, 1),
        "likely_s": round(likely, 1),
        "high_s": round(high, 1),
        "truth_s": truth,
        "inside": low <= truth <= high,
        "off": round(likely / truth - 1, 3),
    }


def record_after(command: list[str], folder: Path) -> dict[str, Any]:
    """The record of the run that a command makes."""
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    record = OutputFolder(str(folder / "out")).read_last_run()
    assert record is not None
    return record


def results(*, tokens: int, shards: int, cases: int) -> Iterator[dict[str, Any]]:
    """One case after the other."""
    for case in CASES[:cases]:
        with tempfile.TemporaryDirectory() as name:
            yield measured(case, Path(name), tokens=tokens, shards=shards)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--cases", type=int, default=len(CASES))
    options = parser.parse_args()
    found = []
    for result in results(tokens=options.tokens, shards=options.shards, cases=options.cases):
        found.append(result)
        print(json.dumps(result), flush=True)
    inside = sum(bool(result.get("inside")) for result in found)
    near = sum(abs(result.get("off", 1.0)) <= 0.2 for result in found)
    print(json.dumps({"cases": len(found), "inside": inside, "within_20_percent": near}))


if __name__ == "__main__":
    main()

"""`preln demo` as a user starts it in; proof that it runs to its end, and shows answers, paths and what they are worth, out."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from jobs.demo import SHOWN
from jobs.embedded import SAMPLE

pytestmark = [pytest.mark.ray, pytest.mark.torch]

ROWS = 287
"""Texts of the sample, over its three files."""


def test_the_demo_annotates_the_sample_and_shows_its_first_answers(
    ray_environment: Path, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "demo[1]"  # as it is named, not as markup
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "demo", "--output", str(folder)],
        cwd=repository,
        env={**os.environ, "COLUMNS": "400", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    rows = ds.dataset(folder / "data").to_table().to_pylist()
    assert len(rows) == ROWS
    assert all(row["label"] and 0 < row["score"] <= 1 for row in rows if row["error"] is None)
    assert {row["source"].rpartition("/")[2] for row in rows} == {path.name for path in SAMPLE.glob("texts.*")}
    by_place = {(row["source"].rpartition("/")[2], row["text"]): row for row in rows}
    shown = [
        tuple(cell.strip() for cell in line.strip("│").split("│"))
        for line in done.stdout.splitlines()
        if line.startswith("│")
    ]
    assert len(shown) == SHOWN
    for name, text, label, score in shown:
        row = by_place[name, text]
        assert (label, score) == (row["label"], f"{row['score']:.3f}")
    assert f"Done: {ROWS} rows of 3 files" in done.stdout
    assert f"{folder}/data/*.parquet" in done.stdout
    assert "The checkpoint is a small random one" in done.stdout
    assert "its labels mean nothing" in done.stdout

"""`preln demo`, started like a user does, shows answers, paths and where the checkpoint's quality is documented."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from jobs.demo import SHOWN, answers_of
from jobs.embedded import SAMPLE

pytestmark = [pytest.mark.ray, pytest.mark.torch]

ROWS = 297
"""Texts of the sample, over its four files."""


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
    assert all(row["error"] is None for row in rows)
    assert all(row["intents_label"] and 0 < row["intents_score"] <= 1 for row in rows)
    assert {row["source"].rpartition("/")[2] for row in rows} == {path.name for path in SAMPLE.glob("*.*")}
    assert all(len(row["masks_masks"]) == row["text"].count("<mask>") for row in rows)
    assert {one["entity_group"] for row in rows for one in row["entities_entities"]} == {"PER", "LOC", "ORG"}
    assert any(row["questions_answers"] and row["questions_answers"][0]["answer"] for row in rows)
    by_text = {row["text"]: row for row in rows}
    shown: list[list[str]] = []
    for line in done.stdout.splitlines():
        if line.startswith("│"):
            text, answer = (cell.strip() for cell in line.strip("│").split("│"))
            shown += [[text]] if text else []
            shown[-1].append(answer)
    assert [text for text, *_ in shown] == list(SHOWN)
    assert {by_text[text]["source"] for text in SHOWN} == {row["source"] for row in rows}
    for text, *answers in shown:
        assert answers == answers_of(by_text[text])
    assert f"Done: {ROWS} rows of 4 files" in done.stdout
    assert f"{folder}/data/*.parquet" in done.stdout
    assert "The checkpoint is a small one, for trying this out: demo/CARD.md" in done.stdout
    assert "Questions are answered too, but not shown: 7.3% of XQuAD's answers are exactly right" in done.stdout

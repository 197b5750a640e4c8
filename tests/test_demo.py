"""`preln demo`, started like a user does, shows answers, paths and where the checkpoint's quality is documented.

It runs once, as pip's script, in a folder of a user whose own packages have our names.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from jobs import cli
from jobs.demo import SHOWN, answers_of
from jobs.embedded import SAMPLE

pytestmark = [pytest.mark.ray, pytest.mark.torch]

ROWS = 297
"""Texts of the sample, over its four files."""


@dataclass(frozen=True)
class Demo:
    """How the command ended, and its output folder."""

    done: subprocess.CompletedProcess[str]
    folder: Path


@pytest.fixture(scope="module")
def demo(ray_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    home = tmp_path_factory.mktemp("user")
    for name in ("pipeline", "models", "jobs", "preln"):
        (home / name).mkdir()
        (home / name / "__init__.py").write_text("raise SystemExit('the folder of the user was imported')")
    script = home / "bin" / "preln"  # as pip writes it: its own folder is the first on the path
    script.parent.mkdir()
    root = str(Path(cli.__file__).parents[1])
    script.write_text(f"import sys; sys.path.append({root!r}); from jobs.__main__ import main; main()")
    folder = home / "demo[1]"  # as it is named, not as markup
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run(
        [sys.executable, str(script), "demo", "--output", str(folder)],
        cwd=home,
        env={**kept, "COLUMNS": "400", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    return Demo(done, folder)


def test_folders_of_the_users_with_our_names_are_never_imported(demo: Demo) -> None:
    printed = demo.done.stdout + demo.done.stderr
    assert (demo.done.returncode, "user was imported" in printed) == (0, False), printed


def test_the_demo_annotates_the_sample_and_shows_its_first_answers(demo: Demo) -> None:
    done, folder = demo.done, demo.folder
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

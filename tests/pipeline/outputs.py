"""Finished outputs of the demo's four heads, each made once a test process."""

from pathlib import Path
from typing import Any

import pytest

from jobs.demo import TASKS
from jobs.embedded import DEMO, SAMPLE
from tests.pipeline.run_here import run_here

TEXTS = [str(SAMPLE / "texts.jsonl"), str(SAMPLE / "blanks.txt")]


_MADE: dict[str, str] = {}


def made(name: str, factory: pytest.TempPathFactory, **job: Any) -> str:
    """An output of this name; the fixtures of several folders share it."""
    if name not in _MADE:
        _MADE[name] = demo_job(factory.mktemp(name) / "out", **job)
    return _MADE[name]


def demo_job(output: Path, *, urls: list[str] | None = None, rows: int = 60, **more: Any) -> str:
    """Run the demo's job, or part of it; the output folder."""
    columns = {"context": "text"} if "questions" in more.get("tasks", TASKS) else {}
    job: dict[str, Any] = {
        "input": {"urls": urls or TEXTS, "columns": columns},
        "model": {"checkpoint": str(DEMO), "dtype": "float32"},
        "tasks": TASKS,
        "output": str(output),
        "resources": {"gpus": 0},
        "shards": {"rows": rows},
        "limits": {"error_share": 1.0},
    }
    assert run_here(**{**job, **more}).state == "done"
    return str(output)


@pytest.fixture(scope="session")
def demo_output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four tasks on 104 texts."""
    return made("demo", tmp_path_factory)


@pytest.fixture(scope="session")
def short_output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same rows, cut otherwise and read up to 12 tokens, by which some answers change; one of the tasks is missing."""
    tasks = {name: task for name, task in TASKS.items() if name != "questions"}
    short = {"checkpoint": str(DEMO), "dtype": "float32", "max_length": 12}
    return made("short", tmp_path_factory, rows=37, model=short, tasks=tasks)


@pytest.fixture(scope="session")
def other_output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same tasks on other texts."""
    return made("other", tmp_path_factory, urls=[str(SAMPLE / "texts.parquet")])

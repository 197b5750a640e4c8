"""`preln.annotate` and a job answer alike: every task and framework, on real texts, errors included; 500 of them with torch."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import preln
from jobs.embedded import DEMO, SAMPLE
from tests.pipeline.run_here import commands_run_here
from tests.pipeline.tasks.conftest import CheckpointOf, checkpoint_of

SCORE_TOLERANCE = 1e-5
"""Between batch shapes, on scores in float32."""
__all__ = ["checkpoint_of"]

FRAMEWORKS = [
    pytest.param("torch", marks=pytest.mark.torch),
    pytest.param("tensorflow", marks=pytest.mark.tensorflow),
    pytest.param("flax", marks=pytest.mark.flax),
]
# The five tasks at once show the same for TensorFlow and Flax in every run of the tests.
TORCH_FIRST = [
    FRAMEWORKS[0],
    pytest.param("tensorflow", marks=[pytest.mark.tensorflow, pytest.mark.slow]),
    pytest.param("flax", marks=[pytest.mark.flax, pytest.mark.slow]),
]
FEWER = 120
"""Texts that are enough where a framework compiles or starts for longer than it computes, or a row takes several passes."""
TASKS: dict[str, Any] = {
    "intents": "text-classification",
    "entities": "token-classification",
    "masks": {"name": "fill-mask", "top_k": 3, "no_mask": "empty"},
    "questions": {"name": "question-answering", "question": "Where?", "allow_null": True},
    "encoder": {"name": "feature-extraction"},
}
ALONE: list[tuple[Any, dict[str, Any]]] = [
    ("masked-lm", {"name": "text-scoring"}),
    ("multiple-choice", {"name": "multiple-choice"}),
]


@pytest.fixture(scope="module")
def table(repository: Path) -> pa.Table:
    """500 texts that people wrote: the sample's, blank ones among them, and lines of the documentation and the licence."""
    texts = (SAMPLE / "texts.txt").read_text().splitlines() + (SAMPLE / "blanks.txt").read_text().splitlines()
    texts += pq.read_table(SAMPLE / "texts.parquet")["text"].to_pylist()
    for file in [*sorted((repository / "docs").glob("*.md")), repository / "LICENSE"]:
        texts += [line for line in file.read_text(encoding="utf-8").splitlines() if len(line.split()) > 4]
    texts = texts[:500]
    assert len(texts) == 500
    choices = [[text, "no", "yes, of course"] for text in texts]
    return pa.table({"text": texts, "context": texts, "prompt": texts, "choices": choices})


def alike(mine: Any, theirs: Any) -> bool:
    """Whether two answers are equal, scores within their tolerance."""
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(alike(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, list):
        return len(mine) == len(theirs) and all(map(alike, mine, theirs))
    if isinstance(mine, float) and isinstance(theirs, float):
        return mine == pytest.approx(theirs, abs=SCORE_TOLERANCE, rel=SCORE_TOLERANCE)
    return bool(mine == theirs)


def compare(table: pa.Table, *, model: Path, output: Path, framework: str, job: dict[str, Any]) -> None:
    """Run a job and `preln.annotate`, and compare every row. Only torch has a process of its own in both."""
    source = output.parent / f"{output.name}.parquet"
    pq.write_table(table, source)
    spec = {
        "input": str(source),
        "model": {"checkpoint": str(model), "framework": framework, "dtype": "float32"},
        "output": str(output),
        "resources": {"gpus": 0},
        "limits": {"error_share": 1.0},
        **job,
    }
    planned = preln.plan(spec)
    assert (planned.rows, planned.written) == (table.num_rows, 0)
    report = preln.run(spec)
    assert (report.state, report.total_rows) == ("done", table.num_rows)
    assert preln.status(output).complete
    assert preln.verify(output, input_urls=str(source)).holds
    theirs = ds.dataset(output / "data").to_table().sort_by("row").drop_columns(["source", "row"])
    options = job if "tasks" in job else {"task": job["task"]["name"]}
    mine = preln.annotate(
        table,
        model=model,
        framework=framework,
        dtype="float32",
        device="cpu",
        isolate=framework == "torch",
        **options,
    )
    assert mine.schema.equals(theirs.schema)
    assert sum(theirs["error"].is_valid().to_pylist()) < table.num_rows / 2
    different = [
        (one, other) for one, other in zip(mine.to_pylist(), theirs.to_pylist(), strict=True) if not alike(one, other)
    ]
    assert not different[:1]


@pytest.mark.ray
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_five_tasks_at_once_are_answered_as_a_job_answers_them(
    framework: str,
    table: pa.Table,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Ray with torch; the others' replicas are the same, and do without it (`make slow` has them on Ray)."""
    if framework == "torch":
        request.getfixturevalue("local_ray")
    else:
        commands_run_here(monkeypatch, replica=True)
    rows = table if framework == "torch" else table.slice(0, FEWER)
    compare(rows, model=DEMO, output=tmp_path / "out", framework=framework, job={"tasks": TASKS})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("framework", FRAMEWORKS[1:])
def test_all_texts_are_answered_alike(framework: str, table: pa.Table, tmp_path: Path) -> None:
    compare(table, model=DEMO, output=tmp_path / "out", framework=framework, job={"tasks": TASKS})


@pytest.mark.parametrize(("head", "task"), ALONE, ids=[task["name"] for _, task in ALONE])
@pytest.mark.parametrize("framework", TORCH_FIRST)
def test_a_task_is_answered_as_a_job_answers_it(
    framework: str,
    head: Any,
    task: dict[str, Any],
    table: pa.Table,
    checkpoint_of: CheckpointOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands_run_here(monkeypatch, replica=True)
    # Scoring a text by a masked model takes a pass for each of its tokens: fewer rows of it say as much.
    rows = table.slice(0, 60 if task["name"] == "text-scoring" else FEWER)
    compare(rows, model=checkpoint_of(head), output=tmp_path / "out", framework=framework, job={"task": task})

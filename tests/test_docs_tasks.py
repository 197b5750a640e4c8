"""The examples of docs/tasks.md and docs/from-hf-pipelines.md run, and the pages document every option."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import yaml

from jobs.checkpoints.make_random import make_random
from models.tensors import ARCHITECTURES
from pipeline.spec.job_spec import JobSpec
from pipeline.tasks import AnyTask
from tests.pipeline.tasks.in_process import Row, annotate

DOCS = Path(__file__).resolve().parents[1] / "docs"
DIGITS = 4
"""Digits behind the point that the documents show."""
RELATIVE = 1e-5
"""Of large numbers, such as perplexities, the part by which another machine may differ."""
NOT_SHOWN = ("source", "row")
SEVERAL = "Several tasks at once"
ONLY_IF_SET = ("truncated", "error")


@dataclass(frozen=True)
class Example:
    """A job, and the rows of its input and output; an example without rows is only read."""

    heading: str
    job: str
    rows: list[Row]
    output: list[Row]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(what follows the fence, content) of every fenced block."""
    for kind, content in re.findall(r"^```([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        yield kind.strip(), content


def examples(page: str) -> list[Example]:
    """The jobs of a page, each with the input and output that follow it."""
    found: list[Example] = []
    for section in re.split(r"^## ", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        for kind, content in blocks(section):
            if kind == "yaml":
                found.append(Example(section.splitlines()[0], content, [], []))
            elif kind in ("jsonl input", "jsonl output"):
                rows = [json.loads(line) for line in content.splitlines()]
                (found[-1].rows if kind == "jsonl input" else found[-1].output).extend(rows)
    return found


def shown(row: Row, *, read: set[str]) -> Row:
    """A row as the documents show it."""
    hidden = {*read, *NOT_SHOWN, *(name for name in ONLY_IF_SET if not row[name])}
    return {name: rounded(value) for name, value in row.items() if name not in hidden}


def rounded(value: Any) -> Any:
    """Numbers with the digits shown."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page's first command makes."""
    folder = tmp_path_factory.mktemp("docs")
    for head in ARCHITECTURES:
        make_random(folder=folder / "checkpoints" / head, head=head)
    return folder


def run(example: Example, *, folder: Path) -> list[Row]:
    """The example's output as the documents show it."""
    values = yaml.safe_load(example.job)
    model = values["model"] if isinstance(values["model"], dict) else {"checkpoint": values["model"]}
    root = DOCS.parent if model["checkpoint"].startswith("jobs/") else folder
    spec = JobSpec.parse({**values, "model": {**model, "checkpoint": str(root / model["checkpoint"])}})
    names = list(dict.fromkeys(name for row in example.rows for name in row))
    columns = {name: pa.array([row.get(name) for row in example.rows]) for name in names}
    return [shown(row, read=set(names)) for row in annotate(spec=spec, columns=columns)]


TASK_EXAMPLES = [example for example in examples("tasks.md") if example.output]


@pytest.mark.torch
@pytest.mark.parametrize("example", TASK_EXAMPLES, ids=lambda example: example.heading)
def test_an_example_of_the_tasks_page_answers_as_it_says(example: Example, checkpoints: Path) -> None:
    found = run(example, folder=checkpoints)
    assert len(found) == len(example.output)
    for row, wanted in zip(found, example.output, strict=True):
        assert_alike(row, wanted)


def assert_alike(found: Any, wanted: Any) -> None:
    """Equal, but for one in the last digit shown."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert_alike(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)
    elif isinstance(wanted, float):
        assert abs(found - wanted) < max(1.5 * 10**-DIGITS, RELATIVE * abs(wanted))
    else:
        assert found == wanted


@pytest.mark.torch
def test_the_example_of_embeddings_gives_vectors_of_length_one(checkpoints: Path) -> None:
    (example,) = [example for example in examples("tasks.md") if example.rows and not example.output]
    assert example.heading == "feature-extraction"
    vectors = np.array([row["embedding"] for row in run(example, folder=checkpoints)])
    assert vectors.shape == (len(example.rows), 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("page", ["tasks.md", "from-hf-pipelines.md"])
def test_every_job_of_a_page_is_a_job(page: str) -> None:
    jobs = [example.job for example in examples(page)]
    assert jobs
    for job in jobs:
        JobSpec.from_yaml(job)


def test_the_tasks_page_has_every_task_with_every_option() -> None:
    text = (DOCS / "tasks.md").read_text(encoding="utf-8")
    sections = {part.splitlines()[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}
    tasks = {str(task.model_fields["name"].default): task for task in get_args(AnyTask)}
    assert set(sections) == {*tasks, SEVERAL}
    for name, task in tasks.items():
        assert any(example.heading == name for example in TASK_EXAMPLES) or name == "feature-extraction"
        missing = [option for option in task.model_fields if option != "name" and f"`{option}`" not in sections[name]]
        assert not missing, f"{name}: {missing}"


def test_every_option_that_the_pages_on_pipelines_names_exists() -> None:
    text = (DOCS / "from-hf-pipelines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[^|]+` \| ([^|]+) \|", text, flags=re.MULTILINE)
    named = {option for row in rows for option in re.findall(r"`([a-z_]+)(?=[:`])", row)}
    tasks = get_args(AnyTask)
    known = {field for task in tasks for field in task.model_fields} | {
        part.name for task in tasks for part in task().parts()
    }
    assert len(named) >= 15
    assert named <= known, f"no such options: {sorted(named - known)}"

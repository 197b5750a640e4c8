"""The checkpoints of every family annotate as the Hugging Face pipelines do, in each framework."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from models.boundary import Framework
from models.families import FAMILIES
from tests.models.frameworks import INSTALLED
from tests.pipeline.tasks.in_process import annotate, job_spec
from tests.pipeline.tasks.reference_calls import expected_rows, found_answers, job_of
from tests.pipeline.tasks.test_reference_answers import assert_alike

HERE = Path(__file__).resolve().parents[2] / "golden" / "families"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "golden" / "families"
FOLDERS = SHARED if SHARED.is_dir() else HERE
OTHERS = [name for name in FAMILIES if name != "roberta-prelayernorm"]


@functools.cache
def calls_of(family: str) -> list[dict[str, Any]]:
    """The reference's calls of a family for which there is a model."""
    path = FOLDERS / family / "annotations.json"
    cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"] if path.is_file() else []
    return [case for case in cases if (FOLDERS / family / case["task"]).is_dir()]


@functools.cache
def checkpoint(family: str, task: str) -> Path:
    """A checkpoint folder: a task's weights and the family's tokenizer."""
    folder = Path(tempfile.mkdtemp(prefix="families-")) / family / task
    folder.mkdir(parents=True)
    for path in (*(FOLDERS / family).iterdir(), *(FOLDERS / family / task).iterdir()):
        if path.is_file() and path.name not in ("annotations.json", "cases.npz"):
            shutil.copyfile(path, folder / path.name)
    return folder


CALLS = [(family, number) for family in OTHERS for number in range(len(calls_of(family)))]


@pytest.mark.parametrize("framework", INSTALLED)
@pytest.mark.parametrize(("family", "number"), CALLS)
def test_a_recorded_call_is_answered_as_the_reference_did(family: str, number: int, framework: Framework) -> None:
    call = calls_of(family)[number]
    job = job_of(call)
    spec = job_spec(task=job.task, checkpoint=checkpoint(family, call["task"]))
    rows = annotate(spec=spec, columns=job.columns, framework=framework)
    for row, wanted in zip(rows, expected_rows(call, rows=len(rows)), strict=True):
        assert row["error"] is None
        assert_alike(found_answers(call["task"], row, ranked="top_k" in job.task), wanted)

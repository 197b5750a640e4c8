"""Folders of sentence-transformers: the vectors are those that the library itself makes, in every framework."""

import importlib.util
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from models.boundary import Framework
from tests.golden import embedders
from tests.models.frameworks import INSTALLED
from tests.pipeline.tasks.in_process import annotate, job_spec

RECORD: dict[str, dict[str, Any]] = json.loads(embedders.RECORD.read_text(encoding="utf-8"))
TOLERANCE = 1e-5


def vectors(folder: Path, framework: Framework, prompt: str | None) -> npt.NDArray[np.float32]:
    """A job's embeddings of the recorded texts, with the folder's own defaults."""
    task = {"name": "feature-extraction", **({} if prompt is None else {"prompt": prompt})}
    rows = annotate(spec=job_spec(task=task, checkpoint=folder), columns={"text": embedders.TEXTS}, framework=framework)
    return np.array([row["embedding"] for row in rows], np.float32)


def check(folder: Path, framework: Framework, wanted: dict[str, Any]) -> None:
    for prompt, expected in wanted["vectors"].items():
        np.testing.assert_allclose(vectors(folder, framework, prompt or None), expected, rtol=0, atol=TOLERANCE)


QUICK = ("cls", "old-mean")
"""One of each pooling in every framework; the others in the first one, and in all under `make slow`."""
CASES = [
    pytest.param(name, framework, marks=[] if name in QUICK or framework == INSTALLED[0] else pytest.mark.slow)
    for name in embedders.FOLDERS
    for framework in INSTALLED
]


@pytest.mark.parametrize(("name", "framework"), CASES)
def test_vectors_are_those_of_sentence_transformers(name: str, framework: Framework, tmp_path: Path) -> None:
    embedders.write_folder(tmp_path / name, RECORD[name]["of"], RECORD[name]["files"])
    check(tmp_path / name, framework, RECORD[name])


def test_the_record_tells_poolings_prompts_and_lengths_apart() -> None:
    cls, old = RECORD["cls"]["vectors"], RECORD["old-mean"]["vectors"]
    assert old[""] == old["passage"]
    for one, other in (
        (cls[""], cls["query"]),
        (old["query"], old["passage"]),
        (old[""], RECORD["mean"]["vectors"][""]),
    ):
        assert np.abs(np.subtract(one, other)).max() > 100 * TOLERANCE
    np.testing.assert_allclose(np.linalg.norm(cls["query"], axis=1), 1, atol=TOLERANCE)


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"
)
@pytest.mark.parametrize("name", embedders.FOLDERS)
def test_whole_folders_that_the_library_writes_are_read(name: str, tmp_path: Path) -> None:
    """With its own weights and tokenizer, not those of families/."""
    check(tmp_path / name, cast("Framework", INSTALLED[0]), embedders.made(tmp_path / name, name))

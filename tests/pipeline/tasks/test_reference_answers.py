"""Every recorded answer of the Hugging Face pipelines, reproduced by our tasks in their hf modes, in each framework."""

import importlib.util
from typing import Any

import numpy as np
import pytest

from models.boundary import Framework
from pipeline.errors import SpecError
from tests.models import golden
from tests.pipeline.tasks.in_process import annotate, job_spec
from tests.pipeline.tasks.reference_calls import SPEC_ERRORS, expected_rows, found_answers, job_of

CALLS = golden.annotation_calls()
SCORE_TOLERANCE = 1e-5
VECTOR_TOLERANCE = 1e-5

FLAT_MODELS = {
    "torch": "models.roberta_torch.flat",
    "tensorflow": "models.roberta_tf.flat",
    "flax": "models.roberta_flax.flat",
}


def _is_here(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


FRAMEWORKS = [
    pytest.param(
        name,
        marks=[
            getattr(pytest.mark, name),
            pytest.mark.skipif(not _is_here(module), reason=f"{module} is not there yet"),
        ],
    )
    for name, module in FLAT_MODELS.items()
]


def test_the_reference_has_86_answers_of_which_7_are_errors() -> None:
    assert len(CALLS) == 86
    assert sum("raised" in call for call in CALLS) == 7


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("number", range(len(CALLS)), ids=lambda n: f"{n}-{CALLS[n]['model']}")
def test_a_recorded_call_is_answered_as_the_reference_did(number: int, framework: Framework) -> None:
    call = CALLS[number]
    job, checkpoint = job_of(call), golden.annotation_checkpoint(call["model"])
    if "raised" in call and any(text in call["raised"] for text in SPEC_ERRORS):
        with pytest.raises(SpecError):
            annotate(spec=job_spec(task=job.task, checkpoint=checkpoint), columns=job.columns)
        return
    spec = job_spec(task=job.task, checkpoint=checkpoint)
    rows = annotate(spec=spec, columns=job.columns, framework=framework)
    if "raised" in call:
        assert [row["error"]["reason"] for row in rows] == [REASONS[call["raised"].split(":")[0]]]
        return
    for row, wanted in zip(rows, expected_rows(call, rows=len(rows)), strict=True):
        assert row["error"] is None
        assert_alike(found_answers(call["task"], row, ranked="top_k" in job.task), wanted)


REASONS = {"PipelineException": "no-mask", "RuntimeError": "too-long", "ValueError": "empty"}
"""The kind of error the reference raises for a row, and the reason our row has."""


def assert_alike(found: Any, wanted: Any) -> None:
    """The same texts, numbers and order; scores and vectors within their tolerance."""
    if isinstance(wanted, dict):
        assert set(wanted) <= set(found)
        for key, value in wanted.items():
            assert_alike(found[key], value)
    elif isinstance(wanted, list) and wanted and isinstance(wanted[0], float):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=VECTOR_TOLERANCE)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)
    elif isinstance(wanted, float):
        assert abs(found - wanted) <= SCORE_TOLERANCE
    else:
        assert found == wanted

"""The same job in PyTorch, TensorFlow and Flax gives the same labels, spans and tokens, over real texts."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.boundary import Framework, Head
from tests.pipeline.tasks.conftest import CheckpointOf
from tests.pipeline.tasks.in_process import Row, annotate, job_spec
from tests.pipeline.tasks.test_reference_answers import FRAMEWORKS

SCORE_TOLERANCE = 1e-4
"""Between frameworks, on scores, vectors and log probabilities a token, in float32."""
FEW, MANY = 100, 2_000

JOBS: list[tuple[Head, dict[str, Any]]] = [
    ("sequence-classification", {"name": "text-classification", "top_k": "all"}),
    ("token-classification", {"name": "token-classification"}),
    (
        "token-classification",
        {"name": "token-classification", "word_rule": "hf", "aggregation": "average", "stride": 32},
    ),
    ("question-answering", {"name": "question-answering", "top_k": 3, "question": "Who did what, and where?"}),
    ("masked-lm", {"name": "fill-mask", "top_k": 3}),
    ("encoder", {"name": "feature-extraction"}),
    ("multiple-choice", {"name": "multiple-choice"}),
    ("causal-lm", {"name": "text-scoring"}),
    ("masked-lm", {"name": "text-scoring"}),
]
OTHERS = [parameter for parameter in FRAMEWORKS if parameter.values[0] != "torch"]


@lru_cache
def real_texts(data: Path) -> list[str]:
    """Sentences of the English Web Treebank that differ."""
    texts = pq.read_table(data / "ud_ewt_text" / "sentences.parquet")["text"].to_pylist()
    return [text for text in dict.fromkeys(texts) if len(text) > 20]


def columns_of(task: Mapping[str, Any], texts: list[str]) -> dict[str, pa.Array]:
    """What the task reads, made of real texts."""
    if task["name"] == "question-answering":
        return {"context": pa.array(texts)}
    if task["name"] == "multiple-choice":
        choices = [[texts[number - 1], texts[number - 2], texts[number - 3]] for number in range(len(texts))]
        return {"prompt": pa.array(texts), "choices": pa.array(choices)}
    if task["name"] == "fill-mask":
        return {"text": pa.array([text.replace(" ", " <mask> ", 1) for text in texts])}
    return {"text": pa.array(texts)}


def answers_in(
    framework: Framework, head: Head, task: dict[str, Any], texts: list[str], made: CheckpointOf
) -> list[Row]:
    """The job's rows in one framework."""
    spec = job_spec(task=task, checkpoint=made(head))
    return annotate(spec=spec, columns=columns_of(task, texts), framework=framework)


@pytest.mark.parametrize("framework", OTHERS)
@pytest.mark.parametrize(("head", "task"), JOBS, ids=lambda value: value if isinstance(value, str) else value["name"])
def test_a_framework_answers_100_texts_as_torch_does(
    data: Path, checkpoint_of: CheckpointOf, framework: Framework, head: Head, task: dict[str, Any]
) -> None:
    texts = real_texts(data)[:FEW]
    assert len(texts) == FEW
    if (head, task["name"]) == ("masked-lm", "text-scoring"):
        texts = texts[:20]  # each makes as many copies as it has tokens
    found = answers_in(framework, head, task, texts, checkpoint_of)
    assert_agree(found, answers_in("torch", head, task, texts, checkpoint_of))


@pytest.mark.slow
@pytest.mark.parametrize("framework", OTHERS)
@pytest.mark.parametrize(("head", "task"), JOBS, ids=lambda value: value if isinstance(value, str) else value["name"])
def test_a_framework_answers_2000_texts_as_torch_does(
    shared: Path, checkpoint_of: CheckpointOf, framework: Framework, head: Head, task: dict[str, Any]
) -> None:
    texts = real_texts(shared / "data")[: FEW if (head, task["name"]) == ("masked-lm", "text-scoring") else MANY]
    found = answers_in(framework, head, task, texts, checkpoint_of)
    assert_agree(found, answers_in("torch", head, task, texts, checkpoint_of))


def assert_agree(found: Any, wanted: Any, *, scale: float = 1.0) -> None:
    """Equal but for numbers, which are within the tolerance."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        # A sum over tokens may be off by the tolerance a token, and the perplexity by its share of that.
        scales = {"log_probability": wanted.get("tokens") or 1, "perplexity": wanted.get("perplexity") or 1}
        for key, value in wanted.items():
            assert_agree(found[key], value, scale=scales.get(key, 1.0))
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_agree(one, other)
    elif isinstance(wanted, float):
        assert abs(found - wanted) <= SCORE_TOLERANCE * scale
    else:
        assert found == wanted

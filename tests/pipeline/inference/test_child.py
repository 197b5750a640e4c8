"""The model's process classifies the exceptions of every framework."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from models.boundary import Answers, Ask, Tokens
from pipeline.inference.child import LoadOrder, answer, load_model, out_of_memory
from tests.pipeline import hostile
from tests.pipeline.small import tokens_of

ASKS: Mapping[str, Ask] = {"sequence-classification": Ask(positions_G=np.zeros(1, np.int32))}


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class ResourceExhaustedError(Exception):
    """As TensorFlow names it."""


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: out of memory"), True),
        (ResourceExhaustedError("OOM when allocating tensor"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (RuntimeError("expected scalar type Half but found Float"), False),
        (ValueError("positions out of range"), False),
    ],
)
def test_memory_that_is_out_is_known_in_the_words_of_each_framework(error: Exception, is_memory: bool) -> None:
    assert out_of_memory(error) == is_memory

    def model(tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        raise error

    reply = answer(model, tokens_of([[1]]), ASKS)
    assert reply[:2] == ("failed", "oom" if is_memory else "exception")


def test_an_exception_is_told_in_one_line_with_its_place() -> None:
    def model(tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        raise ValueError("first\n  second")

    kind, reason, message = answer(model, tokens_of([[1]]), ASKS)
    assert (kind, reason) == ("failed", "exception")
    assert str(message).startswith("ValueError: first second (test_child.py:")


def test_answers_come_with_the_seconds_they_took(tmp_path: Path) -> None:
    order = LoadOrder(
        loader=hostile.LOADER,
        checkpoint=str(tmp_path),
        framework="torch",
        heads=("sequence-classification",),
        dtype="float32",
    )
    kind, answers, seconds = answer(load_model(order), tokens_of([[5, 6]]), ASKS)
    assert kind == "answers"
    assert isinstance(answers, Mapping)
    assert answers["sequence-classification"]["logits"].tolist() == [[5.0, 11.0, 2.0]]
    assert isinstance(seconds, float)
    assert seconds >= 0

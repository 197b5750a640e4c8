"""Loaders of models with a fault that only recomputing finds, for jobs in tests."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.boundary import Answers, Ask, Tokens
from models.load import load
from tests.pipeline.tasks.in_process import Model

OFF_BY_ONE = "tests.pipeline.analysis.faults:off_by_one"
ANOTHER = "tests.pipeline.analysis.faults:another"


def off_by_one(**order: Any) -> Model:
    """The checkpoint's model, which answers for the position behind the one that it is asked for."""
    model = load(**order)

    def answer(tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        return model(tokens, {head: replace(ask, positions_G=ask.positions_G + 1) for head, ask in asks.items()})

    return answer


def another(*, checkpoint: str, **order: Any) -> Model:
    """The model of the checkpoint beside the one that is asked for, with `-other` behind its name."""
    return load(checkpoint=f"{checkpoint}-other", **order)

"""A model that answers zero, as a job's loader: for output folders of every task without a framework."""

from typing import Any

from models.checkpoint import Checkpoint
from tests.pipeline.tasks.in_process import Model, zeros

LOADER = "tests.pipeline.analysis.zero_model:load"


def load(*, checkpoint: str, **_: Any) -> Model:
    """Answers of the right shapes for the checkpoint's labels."""
    config = Checkpoint.open(checkpoint).config
    return zeros(labels=config.num_labels, hidden=config.hidden_size)

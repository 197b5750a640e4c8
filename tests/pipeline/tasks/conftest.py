"""Random checkpoints of every head, made once per test run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.checkpoints.make_random import make_random
from models.boundary import Head

CheckpointOf = Callable[[Head], Path]


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> CheckpointOf:
    """A head -> the folder of a small random checkpoint with it."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def made(head: Head) -> Path:
        if not (folder / head).is_dir():
            make_random(folder=folder / head, head=head)
        return folder / head

    return made

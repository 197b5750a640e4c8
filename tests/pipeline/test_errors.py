"""Errors survive pickling between processes, as Ray sends them."""

import pickle

import pytest

from models.errors import CheckpointError, PrelnError
from pipeline.errors import OutputError, ResourceError, SourceError, SpecError, StorageError

ERRORS = [
    SpecError("m"),
    OutputError("m"),
    ResourceError("m"),
    CheckpointError("m"),
    SourceError("m", reason="gone"),
    StorageError("m", refused=False),
    StorageError("m"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_in_another_process_as_it_was(error: PrelnError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert isinstance(found, PrelnError)
    assert str(found) == "m"
    assert vars(found) == vars(error)

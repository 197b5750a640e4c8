"""The old folders' store and the command in this process: what the tests of this folder ask for."""

from collections.abc import Iterator

import pytest

from tests.command import Command, in_this_process
from tests.conftest import S3Server
from tests.upgrade.half_written import VersionedStore, versioned_store


@pytest.fixture(scope="session")
def store(s3_server: S3Server) -> Iterator[VersionedStore]:
    """The bucket of the committed folders."""
    with versioned_store(s3_server.endpoint) as versioned:
        yield versioned


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`preln VERB ...` in this process."""
    return in_this_process(monkeypatch, capsys)

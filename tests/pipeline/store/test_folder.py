"""The files of a folder, by name."""

import pickle
from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline.store import storage
from pipeline.store.folder import Folder


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.storage)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('s3_bucket')}/f" if request.param == "s3" else str(tmp_path / "f")


def test_files_are_stored_listed_read_and_deleted_by_name(url: str) -> None:
    folder = Folder(url)
    assert folder.names() == []
    folder.put("b", b"two")
    assert folder.put_if_absent("a", b"one") == b"one"
    assert folder.put_if_absent("a", b"another") == b"one"
    (folder / "below").put("c", b"three")
    assert {"a", "b"} <= set(folder.names())
    assert (folder / "below").names() == ["c"]
    assert folder.read("b") == b"two"
    with folder.open("b") as file:
        file.seek(1)
        assert file.read() == b"wo"
    assert storage.read_bytes((folder / "below").url_of("c")) == b"three"
    folder.delete(["a", "b", "gone"])
    with pytest.raises(FileNotFoundError):
        folder.read("a")


def test_a_folder_and_those_below_it_open_their_file_system_once(url: str) -> None:
    with patch.object(storage, "filesystem", wraps=storage.filesystem) as opening:
        folder = Folder(url)
        below = folder / "below"
        below.put("a", b"one")
        assert below.read("a") == b"one"
        assert below.names() == ["a"]
        below.sweep()
        below.delete(["a"])
    assert opening.call_count == 1


def test_a_folder_can_be_sent_to_another_process(url: str) -> None:
    Folder(url).put("a", b"one")
    assert pickle.loads(pickle.dumps(Folder(url))).read("a") == b"one"

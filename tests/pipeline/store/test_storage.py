"""What is written to a local disk or an object store is complete, found, and written only once where asked."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from pipeline.errors import StorageError
from pipeline.store import storage
from pipeline.store.local_disk import TEMPORARY_PREFIX
from pipeline.store.storage import (
    canonical,
    delete,
    find,
    info,
    join,
    names,
    put,
    put_if_absent,
    read_bytes,
    read_range,
    readable,
    sweep,
)

AT_ONCE = 20.0
"""Seconds within which a refusal is told; far below RETRY_SECONDS."""


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.storage)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder on each kind of store."""
    return str(request.getfixturevalue("s3_bucket")) if request.param == "s3" else str(tmp_path)


def found(url: str, *, below: str) -> list[str]:
    return [file.uri.removeprefix(canonical(below) + "/") for file in find(url)]


def test_what_is_put_is_read_back_whole_and_in_ranges(root: str) -> None:
    content = bytes(range(256)) * 40
    put(join(root, "deep", "er", "a.bin"), content)
    url = join(root, "deep", "er", "a.bin")
    assert read_bytes(url) == content
    assert read_range(url, 10, 20) == content[10:20]
    assert read_range(url, len(content) - 3, len(content) + 50) == content[-3:]
    assert read_range(url, 5, 5) == b""


def test_a_put_replaces_what_was_there_and_leaves_nothing_else(root: str) -> None:
    put(join(root, "a"), b"old and longer")
    put(join(root, "a"), b"new")
    assert read_bytes(join(root, "a")) == b"new"
    assert names(root) == ["a"]


def test_an_empty_object_is_an_object(root: str) -> None:
    put(join(root, "empty.txt"), b"")
    assert read_bytes(join(root, "empty.txt")) == b""
    assert found(root, below=root) == ["empty.txt"]


def test_put_if_absent_keeps_what_is_there(root: str) -> None:
    url = join(root, "folder", "_job.json")
    assert put_if_absent(url, b"first") == b"first"
    assert put_if_absent(url, b"second") == b"first"
    assert names(join(root, "folder")) == ["_job.json"]


def test_of_two_that_race_to_put_one_decides_for_both(root: str) -> None:
    for attempt in range(5):
        url = join(root, f"race-{attempt}")
        barrier = threading.Barrier(2)
        told: dict[bytes, bytes] = {}

        def racer(
            content: bytes, url: str = url, barrier: threading.Barrier = barrier, told: dict[bytes, bytes] = told
        ) -> None:
            barrier.wait()
            told[content] = put_if_absent(url, content)

        threads = [threading.Thread(target=racer, args=(content,)) for content in (b"one", b"two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told[b"one"] == told[b"two"] == read_bytes(url)


def test_a_file_a_folder_and_a_glob_are_found_sorted(root: str) -> None:
    for name in ("b.txt", "a.txt", "sub/c.txt", "sub/deep/d.txt", "other.csv"):
        put(join(root, "in", name), b"x")
    folder = join(root, "in")
    assert found(join(folder, "a.txt"), below=folder) == ["a.txt"]
    assert found(folder, below=folder) == ["a.txt", "b.txt", "other.csv", "sub/c.txt", "sub/deep/d.txt"]
    assert found(folder + "/", below=folder) == found(folder, below=folder)
    assert found(join(folder, "*.txt"), below=folder) == ["a.txt", "b.txt"]
    assert found(join(folder, "**/*.txt"), below=folder) == ["a.txt", "b.txt", "sub/c.txt", "sub/deep/d.txt"]
    assert found(join(folder, "[ab].txt"), below=folder) == ["a.txt", "b.txt"]
    assert found(join(folder, "s?b"), below=folder) == ["sub/c.txt", "sub/deep/d.txt"]


def test_nothing_is_found_where_nothing_is(root: str) -> None:
    put(join(root, "in", "a.txt"), b"x")
    for name in ("no.txt", "no/", "no/*.txt", "in/*.csv"):
        assert find(join(root, name)) == []
    assert names(join(root, "no")) == []


def test_hidden_and_underscored_names_are_found_only_when_they_are_meant(root: str) -> None:
    for name in ("a.txt", "_b.txt", ".c.txt", "_old/d.txt", ".tmp/e.txt", "sub/_f.txt", "sub/g.txt"):
        put(join(root, "in", name), b"x")
    folder = join(root, "in")
    assert found(folder, below=folder) == ["a.txt", "sub/g.txt"]
    assert found(join(folder, "*"), below=folder) == ["a.txt", "sub/g.txt"]
    assert found(join(folder, "[_s]*/*"), below=folder) == ["sub/g.txt"]
    assert found(join(folder, "_b.txt"), below=folder) == ["_b.txt"]
    assert found(join(folder, "_old"), below=folder) == ["_old/d.txt"]
    assert found(join(folder, "_old/*"), below=folder) == ["_old/d.txt"]


def test_a_name_with_signs_of_a_glob_is_found_when_it_is_a_file(root: str) -> None:
    put(join(root, "part[1].txt"), b"x")
    assert [file.size for file in find(join(root, "part[1].txt"))] == [1]


def test_a_listing_is_never_an_old_one(root: str) -> None:
    put(join(root, "in", "a.txt"), b"x")
    assert len(find(join(root, "in"))) == 1
    put(join(root, "in", "b.txt"), b"x")
    assert len(find(join(root, "in"))) == len(names(join(root, "in"))) == 2
    delete([join(root, "in", "a.txt")])
    assert len(find(join(root, "in"))) == len(names(join(root, "in"))) == 1


def test_names_are_those_directly_in_a_folder(root: str) -> None:
    for name in ("b", "a", "_c"):
        put(join(root, "data", name), b"x")
    assert names(join(root, "data")) == ["_c", "a", "b"]
    assert names(join(root, "data") + "/") == ["_c", "a", "b"]


def test_deleting_what_is_gone_is_no_error(root: str) -> None:
    put(join(root, "a"), b"x")
    delete([join(root, "a"), join(root, "never")])
    delete([join(root, "a")])
    delete([])
    assert names(root) == []


def test_another_content_is_another_version_and_the_same_file_the_same(root: str) -> None:
    url = join(root, "a.txt")
    put(url, b"one")
    first = info(url)
    assert info(url) == first
    assert find(url) == [first]
    time.sleep(0.01)
    put(url, b"two")
    assert info(url).version != first.version
    assert info(url).size == first.size == 3


def test_what_is_absent_is_a_file_not_found(root: str) -> None:
    for call in (info, read_bytes):
        with pytest.raises(FileNotFoundError):
            call(join(root, "no"))
    with pytest.raises(FileNotFoundError):
        read_range(join(root, "no"), 0, 5)


def test_a_canonical_url_is_absolute_and_has_its_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert canonical("a/b.txt") == canonical(f"file://{tmp_path}/a/b.txt") == f"file://{tmp_path}/a/b.txt"
    assert canonical(canonical("a")) == canonical("a")
    assert readable(canonical("a")) == f"{tmp_path}/a"
    assert readable("s3://bucket/key") == "s3://bucket/key"


def test_an_unknown_protocol_is_refused_in_words() -> None:
    with pytest.raises(StorageError, match="nosuch://a"):
        find("nosuch://a/b")


# --- local disks


def test_a_local_file_is_never_seen_half_written(tmp_path: Path) -> None:
    path, seen, stop = tmp_path / "a", set[bytes](), threading.Event()
    whole = [bytes([number]) * 100_000 for number in range(10)]
    put(str(path), whole[0])

    def watch() -> None:
        while not stop.wait(0.0005):
            seen.add(path.read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for content in whole:
        put(str(path), content)
    stop.set()
    watcher.join()
    assert seen
    assert seen <= set(whole)


def test_a_put_that_can_not_be_finished_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(StorageError, match="taken"):
        put(str(tmp_path / "taken"), b"x")
    assert os.listdir(tmp_path) == ["taken"]


def temporary(folder: Path, *, host: str, process: int) -> Path:
    path = folder / f"{TEMPORARY_PREFIX}{host}.{process}.{'0' * 32}"
    path.write_bytes(b"half")
    return path


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        return child.pid


def test_a_sweep_takes_the_temporary_files_of_the_dead_and_nothing_else(tmp_path: Path) -> None:
    here = socket.gethostname().partition(".")[0]
    dead = temporary(tmp_path, host=here, process=dead_process())
    mine = temporary(tmp_path, host=here, process=os.getpid())
    away = temporary(tmp_path, host="elsewhere", process=1)
    old = temporary(tmp_path, host="elsewhere", process=2)
    yesterday = time.time() - 100_000
    os.utime(old, (yesterday, yesterday))
    (tmp_path / "a.parquet").touch()
    (tmp_path / ".hidden").touch()
    sweep(str(tmp_path))
    assert {path for path in (dead, mine, away, old) if path.exists()} == {mine, away}
    assert (tmp_path / "a.parquet").exists()
    assert (tmp_path / ".hidden").exists()


def test_a_writer_that_is_killed_in_the_middle_leaves_only_what_a_sweep_takes(tmp_path: Path, repository: Path) -> None:
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pipeline.store import storage\n"
        "os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "storage.put(sys.argv[1], b'x' * 1000)"
    )
    target = tmp_path / "data" / "a.parquet"
    run = subprocess.run([sys.executable, "-c", program, str(target), str(repository)], check=False)
    assert run.returncode == -9
    (left,) = os.listdir(target.parent)
    assert left.startswith(TEMPORARY_PREFIX)
    assert find(str(target.parent)) == [], "readers do not see it"
    sweep(str(target.parent))
    assert os.listdir(target.parent) == []


def test_a_sweep_of_a_folder_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    sweep(str(tmp_path / "no"))
    sweep("s3://bucket/data")


# --- stores that refuse or stumble


def test_a_store_that_stumbles_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[BaseException | str] = [TimeoutError("slow"), ConnectionResetError(), "fine"]

    def action() -> str:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    assert storage.attempt(action, what="asking") == "fine"


def test_a_store_that_stays_away_is_told_with_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.3)

    def action() -> None:
        raise TimeoutError("no route")

    with pytest.raises(StorageError, match=r"^writing s3://b/a: TimeoutError: no route$"):
        storage.attempt(action, what="writing s3://b/a")


@pytest.mark.parametrize("error", [PermissionError("no"), ValueError("no"), OSError(28, "No space left on device")])
def test_a_refusal_is_told_at_once(error: Exception) -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        raise error

    with pytest.raises(StorageError, match=r"^looking"):
        storage.attempt(action, what="looking")
    assert len(calls) == 1


@pytest.fixture
def in_a_moment() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE


@pytest.mark.storage
@pytest.mark.usefixtures("in_a_moment", "s3_server")
def test_a_bucket_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(StorageError, match=r"writing s3://no-such-bucket-anywhere/a: .*Does the bucket exist"):
        put("s3://no-such-bucket-anywhere/a", b"x")
    assert find("s3://no-such-bucket-anywhere/in/*.txt") == []


@pytest.fixture
def guarded_bucket(s3_bucket: str) -> Iterator[str]:
    """A bucket whose store checks credentials; those of the tests are good for nothing there."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    put(f"{s3_bucket}/a.txt", b"x")
    _free_requests(endpoint, b"0")
    try:
        yield s3_bucket
    finally:
        _free_requests(endpoint, b"inf")


def _free_requests(endpoint: str, count: bytes) -> None:
    """After so many requests the store checks credentials."""
    url = f"{endpoint}/moto-api/reset-auth"
    urlopen(Request(url, data=count, headers={"Content-Type": "text/plain"}, method="POST")).close()


@pytest.mark.storage
@pytest.mark.usefixtures("in_a_moment")
@pytest.mark.parametrize(
    "call", [lambda url: put(url, b"y"), read_bytes, info, find, lambda url: delete([url]), lambda url: find(url + "*")]
)
def test_refused_credentials_are_told_at_once(guarded_bucket: str, call: Callable[[str], object]) -> None:
    with pytest.raises(StorageError, match=rf"{guarded_bucket}/a\.txt.*: PermissionError: "):
        call(f"{guarded_bucket}/a.txt")


@pytest.mark.storage
@pytest.mark.usefixtures("in_a_moment")
def test_absent_credentials_are_told_at_once(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StorageError, match=f"writing {s3_bucket}/a: .*credentials"):
            put(f"{s3_bucket}/a", b"x")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()

"""A call to a store ends: by its deadline, or with the caller that gives it up; and the calls after it work as usual."""

import ctypes
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models import deadlines
from models.checkpoint import Checkpoint
from models.errors import CheckpointError
from pipeline.errors import StorageError
from pipeline.store import storage

pytestmark = [pytest.mark.storage, pytest.mark.timeout(120)]

SEED = 16
INTERRUPTIONS = 60


class GivenUp(BaseException):
    """What interrupts a call, as KeyboardInterrupt does."""


def interrupted(call: threading.Thread, *, after: float) -> None:
    """Start a thread and raise GivenUp in it where it happens to be."""
    call.start()
    time.sleep(after)
    assert call.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.ident), ctypes.py_object(GivenUp))
    call.join(30)
    assert not call.is_alive()


def test_after_calls_interrupted_at_random_a_store_is_read_and_written_as_usual(s3_bucket: str) -> None:
    chance = random.Random(SEED)
    storage.put(f"{s3_bucket}/a", b"first")
    calls: list[Callable[[], object]] = [
        lambda: storage.put(f"{s3_bucket}/big", bytes(2_000_000)),
        lambda: storage.read_bytes(f"{s3_bucket}/a"),
        lambda: storage.find(s3_bucket),
        lambda: storage.put_if_absent(f"{s3_bucket}/once", b"x"),
    ]
    ends: list[str] = []

    def one(number: int) -> None:
        try:
            calls[number]()
            ends.append("done")
        except GivenUp:
            ends.append("given up")
        except StorageError:
            ends.append("refused")

    for _ in range(INTERRUPTIONS):
        chosen = chance.randrange(len(calls))
        interrupted(threading.Thread(target=one, args=(chosen,)), after=chance.random() * 0.02)
    assert ends.count("given up") > 0, ends
    began = time.monotonic()
    for number in range(20):
        storage.put(f"{s3_bucket}/after-{number}", bytes([number]))
    assert [storage.read_bytes(f"{s3_bucket}/after-{number}") for number in range(20)] == [
        bytes([n]) for n in range(20)
    ]
    assert time.monotonic() - began < 20
    assert storage.read_bytes(f"{s3_bucket}/a") == b"first"


@pytest.mark.parametrize("what", ["read", "put", "find", "open"])
def test_a_store_that_accepts_and_never_answers_ends_the_call_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    monkeypatch.setattr(deadlines, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        url = f"s3://silent/{tmp_path.name}"
        began = time.monotonic()
        calls: dict[str, Callable[[], object]] = {
            "read": lambda: storage.read_bytes(url),
            "put": lambda: storage.put(url, b"x"),
            "find": lambda: storage.find(url),
            "open": lambda: storage.opened(url).__enter__(),
        }
        with pytest.raises(StorageError, match="did not finish in"):
            calls[what]()
        assert time.monotonic() - began < 10
        s3fs.S3FileSystem.clear_instance_cache()


class Stalling(BaseHTTPRequestHandler):
    """Answers HEAD, and no GET before the test is over. ranges: whether it says that it knows ranges."""

    protocol_version = "HTTP/1.1"  # a connection is kept between requests
    ranges = True
    over = threading.Event()

    def do_HEAD(self) -> None:
        """A file of 100 bytes."""
        self.send_response(200)
        self.send_header("Content-Length", "100")
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self) -> None:
        """The head of an answer, and nothing more."""
        if not self.ranges:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.flush()
        self.over.wait(30)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def stalling() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    Stalling.over.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/a.parquet"
    Stalling.over.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_read_of_an_open_file_that_never_ends_ends_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch, stalling: str, ranges: bool
) -> None:
    """In ranges, and from the beginning of a file whose server knows no ranges."""
    monkeypatch.setattr(deadlines, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(Stalling, "ranges", ranges)
    options = {} if ranges else {"block_size": 0}
    with pytest.raises(StorageError, match="did not finish in"), storage.opened(stalling, **options) as file:
        file.read(10)


def test_a_checkpoint_in_a_store_that_never_answers_is_refused_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, stalling: str
) -> None:
    monkeypatch.setattr(deadlines, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(deadlines, "LISTING_SECONDS", 0.5)
    with pytest.raises(CheckpointError, match="did not finish in"):
        Checkpoint.open(stalling.rpartition("/")[0] + "/checkpoint")

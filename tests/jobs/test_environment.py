"""A broken environment in; proof that a command works all the same, or says in one line within 30 seconds what to do."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import environment
from jobs.environment import ray_address, ray_folder, token_without_home
from pipeline.errors import ResourceError


@pytest.mark.parametrize("value", [None, "", " ", "local"])
def test_no_address_is_a_ray_of_our_own(value: str | None) -> None:
    assert ray_address({} if value is None else {"RAY_ADDRESS": value}) == "local"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "preln submit"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("127.0.0.1:1", "no Ray answers"),
    ],
)
def test_an_address_that_can_not_work_is_refused_within_30_seconds(address: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(ResourceError, match=message):
        ray_address({"RAY_ADDRESS": address})
    assert time.monotonic() - began < 30


def test_a_server_of_something_else_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ANSWER_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ResourceError, match="no Ray answers"):
        ray_address({"RAY_ADDRESS": f"127.0.0.1:{server.getsockname()[1]}"})


def test_a_folder_that_sockets_can_not_live_in_is_replaced(tmp_path: Path) -> None:
    assert ray_folder({"TMPDIR": "/tmp"}) is None
    long = tmp_path / ("x" * 95)
    long.mkdir()
    for unfit in (str(long), "/proc", str(tmp_path / "absent")):
        chosen = ray_folder({"TMPDIR": unfit})
        assert chosen is not None
        assert not chosen.startswith(unfit)


def test_without_a_home_ray_gets_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_without_home({}) == {}
    monkeypatch.setenv("HOME", "/proc")
    assert list(token_without_home({})) == ["RAY_AUTH_TOKEN"]
    assert token_without_home({"RAY_AUTH_TOKEN_PATH": "x"}) == {}


@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_closed_standard_streams_do_not_matter(closed: str, repository: Path) -> None:
    program = (
        f"import os; os.close({closed}); os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'jobs', '--help'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, check=False, capture_output=True, env=os.environ
    )
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr
